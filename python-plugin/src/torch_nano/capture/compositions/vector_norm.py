"""Norms of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def vector_norm(
    self: Tensor, ord: float, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    """torch's ``linalg.vector_norm`` of order 1, 2 or infinity.

    Raises:
        UnsupportedNodeError: it is of another order, or has no dimensions.
    """
    if not dim:
        raise UnsupportedNodeError("it mixes the samples of a batch", "name the dimensions: x.norm(dim=1)")
    if ord == inf:
        return self.abs().amax(list(dim), keepdim)
    if ord == 1:
        return self.abs().sum(list(dim), keepdim=keepdim)
    if ord == 2:
        return self.square().sum(list(dim), keepdim=keepdim).sqrt()
    raise UnsupportedNodeError(f"it is of order {ord:g}; expected 1, 2 or infinity", "use order 2")
