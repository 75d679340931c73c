"""Quantized clamps: bounds in real numbers as bounds of integers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from .fixed_point import round_half_away
from .quantization import Quantization


def integer_clamp(low: float | None, high: float | None, output: Quantization) -> tuple[int, int]:
    """A clamp in the output's integers: ``zero_point + round(bound / scale)``.

    The quotient is rounded to float32, then half away from zero, as in TFLite.

    >>> integer_clamp(0.0, 6.0, Quantization(0.03125, -128))
    (-128, 64)
    """

    def integer(bound: float | None, default: int) -> int:
        if bound is None:
            return default
        steps = torch.tensor(np.float32(bound) / np.float32(output.scale))
        return int((round_half_away(steps) + output.zero_point).clamp(*output.bounds))

    smallest, largest = output.bounds
    return integer(low, smallest), integer(high, largest)


@lru_cache(maxsize=256)
def clamp_steps(low: float | None, high: float | None, output: Quantization) -> tuple[int, int]:
    """:func:`integer_clamp` without the zero point.

    Call it inside custom operators only: torch.compile may treat a scale as symbolic and cannot trace this.
    """
    smallest, largest = integer_clamp(low, high, output)
    return smallest - output.zero_point, largest - output.zero_point
