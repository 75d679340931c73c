"""Arithmetic of several steps that is one call of ATen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError
from .sums import weighted_sum


def glu(self: Tensor, dim: int) -> Tensor:
    """torch's ``glu``: one half times the sigmoid of the other."""
    first, second = self.chunk(2, dim)
    return first * second.sigmoid()


def rrelu(
    self: Tensor, lower: float, upper: float, training: bool, generator: torch.Generator | None
) -> Tensor:
    """torch's ``rrelu`` in evaluation: a leaky ReLU with the mean of the slopes.

    Raises:
        UnsupportedNodeError: it draws random slopes.
    """
    if training:
        raise UnsupportedNodeError("it draws random slopes", "pass training=self.training")
    return F.leaky_relu(self, (lower + upper) / 2.0)


def addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
    """torch's ``addcmul``."""
    product = tensor1 * tensor2
    return self + (product if value == 1 else product * value)


def lerp(self: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """torch's ``lerp``."""
    return self + (end - self) * weight


def hypot(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``hypot``."""
    return (self.square() + other.square()).sqrt()


def floor_divide(self: Tensor, other: Tensor | float) -> Tensor:
    """torch's ``floor_divide``."""
    return (self / other).floor()


def diff(self: Tensor, n: int, dim: int, prepend: Tensor | None, append: Tensor | None) -> Tensor:
    """torch's ``diff``.

    Raises:
        UnsupportedNodeError: other tensors are put in front or after.
    """
    if prepend is not None or append is not None:
        raise UnsupportedNodeError("it has prepend or append", "concatenate first (torch.cat)")
    for _ in range(n):
        length = self.shape[dim] - 1
        self = self.narrow(dim, 1, length) - self.narrow(dim, 0, length)
    return self


def clamp(self: Tensor, min: Tensor | None, max: Tensor | None) -> Tensor:
    """torch's ``clamp`` by tensors."""
    self = self if min is None else torch.maximum(self, min)
    return self if max is None else torch.minimum(self, max)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int, eps: float) -> Tensor:
    """torch's ``cosine_similarity``: the mean product of both, divided by their root mean squares."""
    count = x1.shape[dim]

    def normalized(x: Tensor) -> Tensor:
        return F.rms_norm(x.movedim(dim, -1), (count,), eps=eps**2 / count)

    return weighted_sum(normalized(x1) * normalized(x2), [-1], False, 1.0 / count)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool) -> Tensor:
    """torch's ``pairwise_distance``: the norm of the difference along the last dimension."""
    norm: Tensor = torch.linalg.vector_norm(x1 - x2 + eps, p, [-1], keepdim)
    return norm
