"""The base class of all operators."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .call import Call, Moved, MovedBack
from .layer import Layer
from .rules import INT8, MOVING, NATIVE_RULES, NATIVE_SIGNATURES, Own, Rule, Signature
from .straight_through import straight_through
from .value import Value

#: What a run returns: the output, or a tuple of several.
Outputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Operator(ABC):
    """An operator of nano-core in torch: one subclass per operator, each in its own file.

    An operator holds its attributes only; the node names its weights. All shapes are torch's (channels first)
    without batch; all runs take tensors with batch. Methods get a :class:`Layer` of this operator; callers
    use that layer's methods of the same names.
    """

    #: nano-core's name of the operator.
    name: ClassVar[str]
    #: How each output gets its quantization: nano-core's rules, if it has the operator.
    rules: ClassVar[tuple[Rule, ...]] = (Own(),)
    #: The dtypes of inputs and outputs: those of nano-core's kernels, if it has the operator.
    signatures: ClassVar[tuple[Signature, ...]] = (INT8,)
    #: Whether an activation's clamp can be fused into this operator's output.
    fuses_clamp: ClassVar[bool] = False
    #: Whether plain torch computes its integers on a PC as fast as nano-core, whose kernels are for devices:
    #: sums of products, which torch vectorizes.
    fast_in_torch: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        name = vars(cls).get("name")
        if name not in NATIVE_RULES:
            return
        if not {"rules", "signatures"}.isdisjoint(vars(cls)):
            raise TypeError(f"{cls.__name__} sets the rules of {name}, which nano-core defines")
        cls.rules, cls.signatures = NATIVE_RULES[name], NATIVE_SIGNATURES[name]

    @property
    def elementwise(self) -> bool:
        """Whether each element of the output depends only on the inputs' elements at the same position, after
        broadcasting. Such an operator takes values of any rank.
        """
        return False

    @classmethod
    def moves_data(cls) -> bool:
        """Whether it only moves elements, of any dtype."""
        return MOVING.issubset(cls.signatures)

    @property
    def pixelwise(self) -> bool:
        """Whether each pixel of the output depends only on the inputs' pixels at the same position."""
        return False

    def encoded(self) -> dict[str, Any]:
        """The class's name and the attributes for JSON; :mod:`torch_nano.ir.encoding` has the inverse."""
        return {"operator": type(self).__name__, "attributes": asdict(self)}

    @cached_property
    def text(self) -> str:
        """:meth:`encoded` as JSON."""
        return json.dumps(self.encoded())

    @classmethod
    @abstractmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        """The ATen overloads (training IR, in-place aliases included) that become this operator."""

    @classmethod
    @abstractmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, Sequence[Value | Moved], dict[str, str]]:
        """The operator, its inputs and its parameters (role to name) for an ATen call.

        Inputs may be moved first, and results after the operator.

        Raises:
            UnsupportedNodeError: nano-core cannot compute the call.
        """

    @abstractmethod
    def float_run(self, layer: Layer) -> Outputs:
        """The operator in float, for real inputs and parameters; equals the original torch call."""

    def observed(self, layer: Layer, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The numbers that the range of each output must cover: those of the output, unless the integer run
        keeps others in its quantization, such as the earlier values of a last state.

        Args:
            layer: that of the float run.
            outputs: of the float run.
        """
        return outputs

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        """The tensors of the image's layer by nano-core's name; {} for operators without tensors.

        "weights" int8, "bias" int32, "weight_scales" float32, "table" int8, in the layout of nano-core's
        documentation of the operator. The layer has parameters, quantizations and shapes, but no input
        tensors; it may have the inputs' means.
        """
        return {}

    def attributes(self, layer: Layer) -> dict[str, int]:
        """The attributes of the image's layer by nano-core's name, from its quantizations and shapes."""
        return {}

    @abstractmethod
    def integer_run(self, layer: Layer) -> Outputs:
        """The operator on integers in plain torch, on any torch device; gives nano-core's bytes.

        The layer has inputs of their quantizations' dtypes, and the tensors from :meth:`quantize`.
        """

    def train_run(self, layer: Layer) -> Outputs:
        """The integer run in training: nano-core's numbers, with a straight-through gradient.

        The gradient is that of the float run, zero where integers saturate. Inputs and outputs are floats
        that hold integers without their zero point, ``q - zero_point``: float32, for int32 float64.
        Parameters are real numbers.
        """
        return straight_through(layer)
