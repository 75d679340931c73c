"""What every operator is made of, and the plain data of a graph that uses it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import QuantizationError

#: A torch shape without the batch dimension: (channels, height, width), (channels, length) or (features,).
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Quantization:
    """int8 quantization of one tensor: ``real = scale * (q - zero_point)``.

    The scale is rounded to float32, which is what an image stores.

    Raises:
        QuantizationError: the scale is not a positive float32, or the zero point is not an int8.

    >>> Quantization(0.5, -128).range
    (0.0, 127.5)
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        scale = float(np.float32(self.scale))
        if not 0.0 < scale < math.inf or not -128 <= self.zero_point <= 127:
            raise QuantizationError(
                f"quantization with scale {self.scale} and zero point {self.zero_point}: "
                "the scale must be a positive finite float32, the zero point -128 to 127"
            )
        object.__setattr__(self, "scale", scale)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real number that int8 can hold."""
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)


@dataclass(frozen=True)
class Dropout:
    """A dropout that stands behind a value in training, and is nothing in evaluation."""

    #: ATen's name: "dropout" for single numbers, "feature_dropout" for whole channels, "alpha_dropout".
    function: str
    probability: float
    #: Dotted path of the module whose training mode counts.
    module_path: str
    #: "file:line" of the user's own code.
    source: str
    #: Others read the value too, without the dropout.
    bypassed: bool


@dataclass
class Value:
    """One tensor of a graph, float or quantized."""

    name: str
    shape: Shape
    quantization: Quantization | None = None
    #: Dotted path of the module that makes it, "" for the model itself.
    module_path: str = ""
    #: "file:line" of the user's own code that makes it.
    source: str = ""
    dropouts: tuple[Dropout, ...] = ()


@dataclass
class Node:
    """One operator of a graph: ``output = operator(inputs; parameters)``."""

    operator: Operator
    inputs: list[str]
    output: str
    #: Names in :attr:`Graph.parameters` by role ("weight", "bias"); those of the original model.
    parameters: dict[str, str] = field(default_factory=dict)


class UnsupportedNodeError(Exception):
    """Raised by :meth:`Operator.from_call` for one ATen call; capture collects them all.

    ``reason`` says what is not supported, ``way_out`` what the user can write instead ("" if there is
    nothing).
    """

    def __init__(self, reason: str, way_out: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.way_out = way_out


@dataclass(frozen=True)
class Call:
    """One ATen call on its way into a graph.

    ``arguments`` holds all arguments by the name of the operator's schema, defaults filled in; tensors of the
    run stand there as :class:`Value`, parameters and buffers as :class:`ParameterName`.
    """

    target: torch._ops.OpOverload[..., Any]
    arguments: Mapping[str, Any]
    #: Shape of the result without the batch dimension.
    output_shape: Shape
    #: Tensors of the model by name (parameters, buffers, constants).
    tensors: Mapping[str, Tensor]

    @property
    def function(self) -> str:
        """ATen's name of what is called: "relu" for relu_.default."""
        return self.target._schema.name.removeprefix("aten::").removesuffix("_")

    def input(self, name: str) -> Value:
        """The argument `name`, which must be a tensor of the run.

        Raises:
            UnsupportedNodeError: it is not.
        """
        value = self.arguments[name]
        if not isinstance(value, Value):
            raise UnsupportedNodeError(
                f"its {name} is not computed from the model's input", "compute it once, outside of forward"
            )
        return value


class ParameterName(str):
    """Name of a parameter or buffer of the original model."""


@dataclass(frozen=True)
class Operator(ABC):
    """One operator of nano-core as torch must know it. One subclass per operator, in one file each.

    An operator holds its attributes only; weights are named by the node. All shapes are torch's (channels
    first) without batch; all runs take tensors with batch.
    """

    #: nano-core's name of the operator.
    name: ClassVar[str]
    #: The output has the input's scale and zero point (pools).
    keeps_quantization: ClassVar[bool] = False
    #: The output's scale and zero point are fixed by the operator (softmax).
    fixed_quantization: ClassVar[Quantization | None] = None
    #: An activation's clamp can be fused into this operator's output.
    fuses_clamp: ClassVar[bool] = False

    @cached_property
    def text(self) -> str:
        """The operator as :func:`torch_nano.ops.encoding.decode_text` reads it."""
        from .encoding import encode

        return json.dumps(encode(self))

    @classmethod
    @abstractmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        """The ATen overloads (training IR, in-place aliases included) that become this operator."""

    @classmethod
    @abstractmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        """The operator, its inputs and its parameters (role to name) for an ATen call.

        Raises:
            UnsupportedNodeError: if nano-core cannot do what the call asks for.
        """

    @abstractmethod
    def float_run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        """The operator in float: equal to the torch module it came from."""

    def quantize(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Sequence[Quantization],
        input_shapes: Sequence[Shape],
        output: Quantization,
    ) -> dict[str, Tensor]:
        """The tensors of the image's layer by nano-core's name; {} for operators without any.

        "weights" int8, "bias" int32, "weight_scales" float32, "table" int8; laid out as nano-core's
        documentation of the operator says.
        """
        return {}

    @abstractmethod
    def attributes(self, output: Quantization) -> dict[str, int]:
        """The attributes of the image's layer by nano-core's name."""

    @abstractmethod
    def integer_run(
        self,
        inputs: Sequence[Tensor],
        tensors: Mapping[str, Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization,
    ) -> Tensor:
        """The operator on int8 numbers in plain torch, on any device: nano-core's bytes.

        ``inputs`` are int8 tensors in torch's layout with batch; ``tensors`` is what :meth:`quantize`
        returned.
        """

    def train_run(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization,
    ) -> Tensor:
        """The integer run in training: nano-core's numbers, and the gradient of the float run.

        The gradient goes straight through all rounding and is zero where int8 saturates.

        Args:
            inputs: float32 that holds int8 numbers without their zero point, ``q - zero_point``.
            parameters: real numbers, as :meth:`float_run` takes them.

        Returns:
            float32 that holds int8 numbers without their zero point.
        """
        from ._training import straight_through

        return straight_through(self, inputs, input_quantization, output_quantization)
