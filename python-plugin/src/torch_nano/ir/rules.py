"""The rules by which an operator's values get their dtypes and its outputs their quantizations, as data.

nano-core defines the rules of its operators; operators of Python graphs only define theirs in their class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from .. import _native
from ..arithmetic.quantization import Dtype, Quantization

if TYPE_CHECKING:
    from .._native import QuantizationRule


@dataclass(frozen=True)
class Signature:
    """Dtypes of inputs and outputs that an operator has together; the last one of each holds for all further.

    >>> Signature(("int16",), ("int16",)).takes(["int16", "int16"])
    True
    """

    inputs: tuple[Dtype, ...]
    outputs: tuple[Dtype, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"

    def input(self, index: int) -> Dtype:
        """The dtype of an input."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> Dtype:
        """The dtype of an output."""
        return self.outputs[min(index, len(self.outputs) - 1)]

    def takes(self, inputs: Sequence[str]) -> bool:
        """Whether inputs have these dtypes."""
        return all(dtype == self.input(index) for index, dtype in enumerate(inputs))

    def makes(self, outputs: Sequence[str]) -> bool:
        """Whether outputs have these dtypes."""
        return all(dtype == self.output(index) for index, dtype in enumerate(outputs))


#: The signature of layers in int8.
INT8 = Signature(("int8",), ("int8",))
#: Those of operators that only move data.
MOVING = frozenset(Signature((dtype,), (dtype,)) for dtype in get_args(Dtype))


@dataclass(frozen=True)
class Own:
    """An output with a scale and a zero point of its own, chosen from its observed range.

    With ``power_of_two`` the scale is a power of two.
    """

    power_of_two: bool = False


@dataclass(frozen=True)
class SameAs:
    """An output with the quantization of this input: a pool, a reshape."""

    input: int = 0


@dataclass(frozen=True)
class Fixed:
    """An output that always has this quantization: softmax."""

    quantization: Quantization


@dataclass(frozen=True)
class Shared:
    """An output that has one quantization with all inputs: concatenation."""


#: The rule for the quantization of an output.
Rule = Own | SameAs | Fixed | Shared


def _rule(entry: QuantizationRule, dtype: Dtype) -> Rule:
    """The rule of an output whose dtype, if it has a fixed quantization, is `dtype`."""
    match entry["rule"]:
        case "own":
            return Own(entry["power_of_two"])
        case "same_as":
            return SameAs(entry["input"])
        case "fixed":
            return Fixed(Quantization(entry["scale"], entry["zero_point"], dtype))
        case "shared":
            return Shared()


#: nano-core's rule for each output of its operators, by the operator's name.
NATIVE_RULES = {
    name: tuple(map(_rule, operator["quantization"], operator["dtypes"][0][1]))
    for name, operator in _native.operators().items()
}
#: The dtypes for which nano-core has kernels, by the operator's name.
NATIVE_SIGNATURES = {
    name: tuple(Signature(tuple(inputs), tuple(outputs)) for inputs, outputs in operator["dtypes"])
    for name, operator in _native.operators().items()
}
