"""Sums over dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def total(self: Tensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    """torch's ``sum`` over dimensions: the mean times the number of elements.

    Raises:
        UnsupportedNodeError: it has no dimensions.
    """
    if not dim:
        raise UnsupportedNodeError("it mixes the samples of a batch", "name the dimensions: x.sum((1, 2))")
    return torch.mean(self, list(dim), keepdim=keepdim) * prod(self.shape[index] for index in dim)
