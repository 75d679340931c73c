"""PReLU: the slope below zero is a parameter."""

from __future__ import annotations

from torch import Tensor


def prelu(self: Tensor, weight: Tensor) -> Tensor:
    """torch's ``prelu``: the part below zero times one slope, or one for each channel."""
    slope = weight.reshape(1, -1, *[1] * (self.dim() - 2))
    return self.clamp(min=0.0) + self.clamp(max=0.0) * slope
