"""Base class of operators with a fused activation (a clamp)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ..arithmetic.clamp import integer_clamp
from ..ir.layer import Layer
from ..ir.operator import Operator


@dataclass(frozen=True)
class ClampedOperator(Operator):
    """An operator with a fused activation: a clamp of its output in real numbers, None for no bound."""

    fuses_clamp = True

    clamp_low: float | None = field(default=None, kw_only=True)
    clamp_high: float | None = field(default=None, kw_only=True)

    def with_clamp(self, low: float | None, high: float | None) -> Self:
        """This operator followed by one more clamp."""
        clamp_low = low if self.clamp_low is None else _clamped(self.clamp_low, low, high)
        clamp_high = high if self.clamp_high is None else _clamped(self.clamp_high, low, high)
        return replace(self, clamp_low=clamp_low, clamp_high=clamp_high)

    def without_clamp(self) -> Self:
        """This operator without its activation."""
        return replace(self, clamp_low=None, clamp_high=None)

    def activate(self, y: Tensor) -> Tensor:
        """Clamps real numbers."""
        if self.clamp_low is None and self.clamp_high is None:
            return y
        return torch.clamp(y, self.clamp_low, self.clamp_high)

    def integer_bounds(self, layer: Layer) -> tuple[int, int]:
        """The clamp in the output's integers."""
        return integer_clamp(self.clamp_low, self.clamp_high, layer.output_quantization)

    def attributes(self, layer: Layer) -> dict[str, int]:
        low, high = self.integer_bounds(layer)
        return {"clamp_min": low, "clamp_max": high}


def _clamped(bound: float, low: float | None, high: float | None) -> float:
    bound = bound if low is None else max(bound, low)
    return bound if high is None else min(bound, high)
