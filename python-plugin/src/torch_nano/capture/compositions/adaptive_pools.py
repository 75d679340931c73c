"""Adaptive pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.adaptive_windows import EqualWindows, bounds, in_one_layer


def adaptive_average_pool(self: Tensor, output_size: Sequence[int]) -> Tensor | None:
    """torch's ``adaptive_avg_pool1d`` and ``adaptive_avg_pool2d``, window by window along one axis.

    None where it is one layer.
    """
    axes = list(zip(range(-len(output_size), 0), self.shape[-len(output_size) :], output_size, strict=True))
    if all(windows % side == 0 for _, side, windows in axes):
        for dim, side, windows in axes:
            self = self.repeat_interleave(windows // side, dim) if windows > side else self
        return self
    if in_one_layer([side for _, side, _ in axes], output_size) is not None:
        return None
    # The last such axis: those before it keep their windows.
    dim = max(dim for dim, side, windows in axes if EqualWindows.of(side, windows).elements is not None)
    size = [1 if axis == dim else windows for axis, _, windows in axes]

    def pool(part: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(part, (size[0], size[1])) if size[1:] else part.mean(dim, keepdim=True)

    return _by_windows(self, dim, output_size[dim], pool)


def adaptive_max_pool(self: Tensor, output_size: Sequence[int]) -> tuple[Tensor, None]:
    """torch's ``adaptive_max_pool1d`` and ``adaptive_max_pool2d``, without the indices; window by
    window along axes where these differ.
    """
    axes = list(zip(range(-len(output_size), 0), self.shape[-len(output_size) :], output_size, strict=True))
    every = [EqualWindows.of(side, windows) for _, side, windows in axes]
    kernel, stride = zip(
        *((axis.kernel, axis.stride) if axis.elements is None else (1, 1) for axis in every), strict=True
    )
    if any(side > 1 for side in kernel):
        self = (F.max_pool1d if len(axes) == 1 else F.max_pool2d)(self, kernel, stride)
    for (dim, _, windows), axis in zip(axes, every, strict=True):
        if axis.elements is not None:
            self = _by_windows(self, dim, windows, partial(torch.amax, dim=dim, keepdim=True))
    return self, None


def _by_windows(x: Tensor, dim: int, windows: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Reduces each distinct window along a dimension once, and concatenates the results."""
    every = bounds(x.shape[dim], windows)
    parts = {
        window: reduce(x.narrow(dim, window[0], window[1] - window[0])) for window in dict.fromkeys(every)
    }
    return torch.cat([parts[window] for window in every], dim) if len(every) > 1 else parts[every[0]]
