"""Adaptive pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Bounds = tuple[int, int]


def adaptive_average_pool(self: Tensor, output_size: Sequence[int]) -> Tensor:
    """torch's ``adaptive_avg_pool1d`` and ``adaptive_avg_pool2d``."""
    kernel = _common_kernel(self, output_size)
    if kernel is not None:
        return (F.avg_pool1d if len(kernel) == 1 else F.avg_pool2d)(self, kernel)
    return _by_windows(self, output_size, lambda x, dims: x.mean(dims, keepdim=True))


def adaptive_max_pool(self: Tensor, output_size: Sequence[int]) -> tuple[Tensor, None]:
    """torch's ``adaptive_max_pool1d`` and ``adaptive_max_pool2d``, without the indices."""
    kernel = _common_kernel(self, output_size)
    if kernel is not None:
        return (F.max_pool1d if len(kernel) == 1 else F.max_pool2d)(self, kernel), None
    return _by_windows(self, output_size, lambda x, dims: x.amax(dims, keepdim=True)), None


def _common_kernel(x: Tensor, output_size: Sequence[int]) -> tuple[int, ...] | None:
    """The size of all windows; None if they differ."""
    sides = x.shape[-len(output_size) :]
    if any(side % windows for side, windows in zip(sides, output_size, strict=True)):
        return None
    return tuple(side // windows for side, windows in zip(sides, output_size, strict=True))


def _by_windows(
    x: Tensor, output_size: Sequence[int], reduce: Callable[[Tensor, tuple[int, ...]], Tensor]
) -> Tensor:
    """Reduces each distinct window once, and concatenates the results."""
    dims = tuple(range(-len(output_size), 0))
    bounds = [_bounds(side, windows) for side, windows in zip(x.shape[dims[0] :], output_size, strict=True)]

    def joined(part: Tensor, axis: int) -> Tensor:
        if axis == len(dims):
            return reduce(part, dims)
        parts = {
            (start, end): joined(part.narrow(dims[axis], start, end - start), axis + 1)
            for start, end in dict.fromkeys(bounds[axis])
        }
        return torch.cat([parts[window] for window in bounds[axis]], dims[axis])

    return joined(x, 0)


def _bounds(side: int, windows: int) -> list[Bounds]:
    """The first index of each window and the one after its last, as torch chooses them.

    >>> _bounds(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(index * side // windows, -(-(index + 1) * side // windows)) for index in range(windows)]
