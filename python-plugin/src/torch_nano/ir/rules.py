"""The rules by which an operator's outputs get their quantizations, as data.

nano-core defines the rules of its operators; operators of Python graphs only define theirs in their class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import _native
from ..arithmetic.quantization import Dtype, Quantization

if TYPE_CHECKING:
    from .._native import QuantizationRule


@dataclass(frozen=True)
class Own:
    """An output with a scale and a zero point of its own, chosen from its observed range.

    ``dtype`` is that of the output; None: one of :attr:`.operator.Operator.output_dtypes`, int8 unless
    :attr:`.graph.Graph.dtypes` names another. With ``power_of_two`` the scale is a power of two.
    """

    dtype: Dtype | None = None
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


def _rule(entry: QuantizationRule) -> Rule:
    match entry["rule"]:
        case "own":
            dtypes = entry["dtypes"]
            return Own(dtypes[0] if len(dtypes) == 1 else None, entry["power_of_two"])
        case "same_as":
            return SameAs(entry["input"])
        case "fixed":
            return Fixed(Quantization(entry["scale"], entry["zero_point"]))
        case "shared":
            return Shared()


#: nano-core's rule for each output of its operators, by the operator's name.
NATIVE_RULES = {
    name: tuple(_rule(entry) for entry in operator["quantization"])
    for name, operator in _native.operators().items()
}
#: The dtypes that outputs of the rule :class:`Own` may have, by the operator's name.
NATIVE_OUTPUT_DTYPES: dict[str, frozenset[str]] = {
    name: frozenset().union(
        *(entry["dtypes"] for entry in operator["quantization"] if entry["rule"] == "own")
    )
    for name, operator in _native.operators().items()
}
#: The dtypes that the inputs of nano-core's operators may have, by the operator's name.
NATIVE_INPUT_DTYPES = {
    name: frozenset(operator["input_dtypes"]) for name, operator in _native.operators().items()
}
