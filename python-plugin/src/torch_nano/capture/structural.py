"""Operators of a captured graph that the device does not have: passes take them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ir.affine import AffineOperator
from ..ir.call import Call, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value

aten = torch.ops.aten


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
        parameters = call.parameters("weight", "bias", "running_mean", "running_var")
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
