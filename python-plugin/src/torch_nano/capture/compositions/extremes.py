"""Largest and smallest numbers along dimensions."""

from __future__ import annotations

from torch import Tensor


def largest(self: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, None]:
    """torch's ``max`` along a dimension, without the indices."""
    return self.amax(dim, keepdim), None


def smallest(self: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, None]:
    """torch's ``min`` along a dimension, without the indices."""
    return self.amin(dim, keepdim), None


def amin(self: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    """torch's ``amin``: the largest negative number."""
    return self.neg().amax(dim, keepdim).neg()


def maximum(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``maximum`` of two tensors."""
    return other + (self - other).relu()


def minimum(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``minimum`` of two tensors."""
    return self - (self - other).relu()
