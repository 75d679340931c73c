"""The rules by which an operator's outputs get their quantizations, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ..arithmetic.quantization import Dtype, Quantization


@dataclass(frozen=True)
class Own:
    """An output with a scale and a zero point of its own, chosen from its observed range."""

    dtype: Dtype = "int8"


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
