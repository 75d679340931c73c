"""Operators of a captured graph that the device does not have: passes take them out, or they cost nothing
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.layout import Shape
from ..ir.affine import AffineOperator
from ..ir.call import Call, ParameterName, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.rules import SameAs
from ..ir.value import Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Reshape(Operator):
    """Another shape for the same numbers: flatten, view, squeeze and their like.

    >>> Layer(Reshape((4,)), [torch.zeros(2, 4, 1, 1)]).float_run()[0].shape
    torch.Size([2, 4])
    """

    name = "reshape"
    rules = (SameAs(),)
    input_dtypes = frozenset({"int8", "int16", "int32"})

    shape: Shape

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.flatten.using_ints,
            aten.reshape.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.unflatten.int,
            aten.unsqueeze.default,
            aten.view.default,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        value = call.arguments["self" if "self" in call.arguments else "input"]
        if not isinstance(value, Value):
            raise UnsupportedNodeError("a parameter is reshaped", "reshape it once, outside of forward")
        if torch.Size(value.shape).numel() != torch.Size(call.output_shape).numel():
            raise UnsupportedNodeError(
                f"it mixes the samples of a batch: {value.shape} becomes {call.output_shape} per sample"
            )
        return cls(call.output_shape), [value], {}

    def float_run(self, layer: Layer) -> Tensor:
        return layer.input.reshape(layer.input.shape[0], *self.shape)

    def integer_run(self, layer: Layer) -> Tensor:
        return self.float_run(layer)

    def train_run(self, layer: Layer) -> Tensor:
        return self.float_run(layer)


@dataclass(frozen=True)
class BatchNorm(AffineOperator):
    """Batch normalization with the stored statistics. A pass folds it, so it never runs in integers."""

    name = "batch_norm"

    epsilon: float
    #: Of the running statistics in training.
    momentum: float
    #: Whether it normalizes with the statistics of the batch in train mode.
    follows: bool = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.batch_norm.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        arguments = call.arguments
        if arguments["training"]:
            raise UnsupportedNodeError(
                "it normalizes with the statistics of the batch",
                "use a BatchNorm with track_running_stats=True",
            )
        roles = ("weight", "bias", "running_mean", "running_var")
        parameters = {role: arguments[role] for role in roles if arguments[role] is not None}
        if not all(isinstance(name, ParameterName) for name in parameters.values()):
            raise UnsupportedNodeError("its parameters are computed in forward")
        return cls(float(arguments["eps"]), float(arguments["momentum"])), [arguments["input"]], parameters

    def scale_and_shift(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean, variance = parameters["running_mean"].double(), parameters["running_var"].double()
        # Square root and quotient are rounded alike on every device; a reciprocal root is not.
        scale = (variance + self.epsilon).sqrt().reciprocal()
        if "weight" in parameters:
            scale = scale * parameters["weight"].double()
        shift = -mean * scale
        return scale, shift + parameters["bias"].double() if "bias" in parameters else shift

    def float_run(self, layer: Layer) -> Tensor:
        return F.batch_norm(
            layer.input,
            layer.parameters["running_mean"],
            layer.parameters["running_var"],
            layer.parameters.get("weight"),
            layer.parameters.get("bias"),
            eps=self.epsilon,
        )
