"""Norms of vectors, and of matrices as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from ...ir.call import UnsupportedNodeError
from .sums import within_samples


def vector_norm(
    self: Tensor, ord: float, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    """torch's ``linalg.vector_norm`` of a positive order, or of minus infinity.

    Raises:
        UnsupportedNodeError: it is of another order, has no dimensions, or the batch is among them.
    """
    dims = within_samples(dim, self.dim())
    if ord == inf:
        return self.abs().amax(dims, keepdim)
    if ord == -inf:
        return self.abs().amin(dims, keepdim)
    if ord == 1:
        return self.abs().sum(dims, keepdim=keepdim)
    if ord == 2:
        return self.square().sum(dims, keepdim=keepdim).sqrt()
    if ord > 0:
        return self.abs().pow(ord).sum(dims, keepdim=keepdim).pow(1 / ord)
    raise UnsupportedNodeError(
        f"it is of order {ord:g}; expected a positive number or minus infinity", "use order 1 or 2"
    )


def norm(
    self: Tensor, ord: float | str | None, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    """torch's ``linalg.norm`` of vectors, and of matrices with the order "fro" or none: their Frobenius norm.

    Raises:
        UnsupportedNodeError: it is a matrix norm of another order, or what :func:`vector_norm` refuses.
    """
    if ord is None or ord == "fro":
        return vector_norm(self, 2, dim, keepdim, dtype)
    if not isinstance(ord, str) and dim is not None and len(dim) == 1:
        return vector_norm(self, ord, dim, keepdim, dtype)
    raise _other_matrix_norm(ord)


def matrix_norm(
    self: Tensor, ord: float | str, dim: Sequence[int], keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    """torch's ``linalg.matrix_norm`` of order "fro".

    Raises:
        UnsupportedNodeError: it is of another order, or what :func:`vector_norm` refuses.
    """
    if ord == "fro":
        return vector_norm(self, 2, dim, keepdim, dtype)
    raise _other_matrix_norm(ord)


def _other_matrix_norm(order: float | str) -> UnsupportedNodeError:
    sums = {1: -2, inf: -1}.get(order) if not isinstance(order, str) else None
    written_out = "" if sums is None else f"; this one is x.abs().sum({sums}).amax(-1)"
    return UnsupportedNodeError(
        f"it is a matrix norm of order {order}; expected the Frobenius norm",
        f"use torch.linalg.norm(x, dim=(2, 3)), without an order{written_out}",
    )
