"""Sums over dimensions, as convolutions whose weights are one number.

They add up in int32 and round once. A mean is rounded to its input's scale: times the number of elements, its
error would be that many times half a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def total(self: Tensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    """torch's ``sum`` over dimensions.

    Raises:
        UnsupportedNodeError: it has no dimensions, or the batch is among them.
    """
    return weighted_sum(self, dim, keepdim)


def weighted_sum(x: Tensor, dim: Sequence[int] | None, keepdim: bool, weight: float = 1.0) -> Tensor:
    """The sum over dimensions times a number.

    Raises:
        UnsupportedNodeError: as of :func:`total`.
    """
    rank = x.dim()
    reduced = sorted({index % rank for index in dim or ()})
    if not reduced or reduced[0] == 0:
        raise UnsupportedNodeError("it mixes the samples of a batch", "name the dimensions: x.sum((1, 2))")
    kept = [index for index in range(1, rank) if index not in reduced]
    count, others = prod(x.shape[index] for index in reduced), [x.shape[index] for index in kept]
    if reduced[0] == 1:
        # The channels are side by side in memory.
        rows = x.permute(0, *kept, *reduced).reshape(x.shape[0], *others, count)
        y = F.linear(rows, torch.full((1, count), weight))
    else:
        # As an image of one channel that is as wide as there are channels, whose rows lie behind each other.
        image = x.permute(0, *reduced, *kept).reshape(x.shape[0], 1, count, prod(others))
        y = F.conv2d(image, torch.full((1, 1, count, 1), weight))
    sides = [1 if index in reduced else x.shape[index] for index in range(1, rank)] if keepdim else others
    return y.reshape(x.shape[0], *sides)
