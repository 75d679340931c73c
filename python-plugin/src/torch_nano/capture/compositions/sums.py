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


def within_samples(dim: Sequence[int] | None, rank: int) -> list[int]:
    """Dimensions of a tensor of this rank, counted from its first one, in order.

    Raises:
        UnsupportedNodeError: there are none, or the batch is among them.
    """
    found = sorted({index % rank for index in dim or ()})
    if not found or found[0] == 0:
        every = f"{tuple(range(1, rank))}, or some of these" if rank > 2 else "1"
        raise UnsupportedNodeError("it mixes the samples of a batch", f"name the dimensions: dim={every}")
    return found


def total(self: Tensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    """torch's ``sum`` and ``nansum`` over dimensions; the device has no NaN.

    Raises:
        UnsupportedNodeError: it has no dimensions, or the batch is among them.
    """
    return weighted_sum(self, dim, keepdim)


def mean_without_nan(
    self: Tensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    """torch's ``nanmean`` over dimensions; the device has no NaN.

    Raises:
        UnsupportedNodeError: as of :func:`total`.
    """
    return self.mean(within_samples(dim, self.dim()), keepdim)


def weighted_sum(x: Tensor, dim: Sequence[int] | None, keepdim: bool, weight: float = 1.0) -> Tensor:
    """The sum over dimensions times a number.

    Raises:
        UnsupportedNodeError: as of :func:`total`.
    """
    rank = x.dim()
    reduced = within_samples(dim, rank)
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
