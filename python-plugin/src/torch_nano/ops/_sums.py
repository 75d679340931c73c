"""The arithmetic shared by addition and subtraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from torch_nano._native import add_parameters

from ..arithmetic.fixed_point import apply_multipliers
from ..arithmetic.quantization import Quantization
from ._pairwise import PairwiseOperator


@dataclass(frozen=True)
class SumOperator(PairwiseOperator):
    """``y = clamp(a + sign * b)``."""

    #: 1 or -1.
    sign: ClassVar[int]

    @classmethod
    def combine(cls, a: Tensor, b: Tensor) -> Tensor:
        return a + b if cls.sign > 0 else a - b

    @classmethod
    def slopes(cls, a: Tensor, b: Tensor) -> tuple[float, float]:
        return 1.0, float(cls.sign)

    @classmethod
    def combine_integers(
        cls, a: Tensor, b: Tensor, quantizations: tuple[Quantization, Quantization, Quantization]
    ) -> Tensor:
        scales = [quantization.scale for quantization in quantizations]
        raise_, *multipliers = add_parameters(quantizations[2].dtype, *scales)
        first = apply_multipliers(a << raise_, multipliers[:1])
        second = apply_multipliers(b << raise_, multipliers[1:2])
        return apply_multipliers(cls.combine(first, second), multipliers[2:])
