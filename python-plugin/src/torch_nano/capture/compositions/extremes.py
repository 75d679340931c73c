"""Largest and smallest numbers along dimensions."""

from __future__ import annotations

from torch import Tensor

from ...ir.call import UnsupportedNodeError
from .sums import within_samples


def largest(self: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """torch's ``max`` along a dimension, and the indices."""
    return self.amax(dim, keepdim), self.argmax(dim, keepdim)


def smallest(self: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """torch's ``min`` along a dimension, and the indices."""
    return self.amin(dim, keepdim), self.argmin(dim, keepdim)


def both(self: Tensor, dim: int | None, keepdim: bool) -> tuple[Tensor, Tensor]:
    """torch's ``aminmax`` along a dimension.

    Raises:
        UnsupportedNodeError: it has no dimension, or that of the batch.
    """
    dims = within_samples(None if dim is None else [dim], self.dim())
    return self.amin(dims, keepdim), self.amax(dims, keepdim)


def top(self: Tensor, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Tensor, Tensor]:
    """torch's ``topk`` of one number.

    Raises:
        UnsupportedNodeError: it is of several.
    """
    if k != 1:
        raise UnsupportedNodeError(
            f"it orders the {k} largest numbers",
            "return the tensor itself, and take topk of the model's output",
        )
    if largest:
        return self.amax(dim, True), self.argmax(dim, True)
    return self.amin(dim, True), self.argmin(dim, True)


def argmin(self: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """torch's ``argmin``: the index of the largest negative number."""
    return self.neg().argmax(dim, keepdim)


def amin(self: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    """torch's ``amin``: the largest negative number."""
    return self.neg().amax(dim, keepdim).neg()


def maximum(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``maximum`` of two tensors."""
    return other + (self - other).relu()


def minimum(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``minimum`` of two tensors."""
    return self - (self - other).relu()
