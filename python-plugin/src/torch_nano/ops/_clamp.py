"""Operators whose output a fused activation clamps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from .operator import Operator, Quantization


@dataclass(frozen=True)
class ClampedOperator(Operator):
    """An operator with a fused activation: a clamp of its output in real numbers, None for no bound."""

    fuses_clamp = True

    clamp_low: float | None = field(default=None, kw_only=True)
    clamp_high: float | None = field(default=None, kw_only=True)

    def with_clamp(self, low: float | None, high: float | None) -> Self:
        """This operator with one more clamp behind it."""
        clamp_low = low if self.clamp_low is None else _clamped(self.clamp_low, low, high)
        clamp_high = high if self.clamp_high is None else _clamped(self.clamp_high, low, high)
        return replace(self, clamp_low=clamp_low, clamp_high=clamp_high)

    def without_clamp(self) -> Self:
        """This operator before its activation."""
        return replace(self, clamp_low=None, clamp_high=None)

    def activate(self, y: Tensor) -> Tensor:
        """The clamp on real numbers."""
        if self.clamp_low is None and self.clamp_high is None:
            return y
        return torch.clamp(y, self.clamp_low, self.clamp_high)

    def clamp_attributes(self, output: Quantization) -> dict[str, int]:
        """nano-core's attributes of the clamp."""
        low, high = integer_clamp(self.clamp_low, self.clamp_high, output)
        return {"clamp_min": low, "clamp_max": high}


def integer_clamp(low: float | None, high: float | None, output: Quantization) -> tuple[int, int]:
    """A clamp in the output's integers, TFLite's rounding: ``zero_point + round(bound / scale)`` in float32.

    >>> integer_clamp(0.0, 6.0, Quantization(0.03125, -128))
    (-128, 64)
    """

    def integer(bound: float | None, default: int) -> int:
        if bound is None:
            return default
        steps = _float32(_float32(bound) / output.scale)
        # Far beyond int8 nothing changes any more, and infinity is no integer.
        steps = min(max(steps, -1000.0), 1000.0)
        nearest = int(math.copysign(math.floor(abs(steps) + 0.5), steps))
        return min(max(nearest + output.zero_point, -128), 127)

    return integer(low, -128), integer(high, 127)


def _float32(real: float) -> float:
    """The nearest float32, in Python: torch.compile would make tensors of numpy's, and no constants."""
    if math.isinf(real):
        return real
    mantissa, exponent = math.frexp(real)
    return math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)


def _clamped(bound: float, low: float | None, high: float | None) -> float:
    bound = bound if low is None else max(bound, low)
    return bound if high is None else min(bound, high)
