"""Variance and standard deviation over dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ...ir.call import UnsupportedNodeError
from .sums import weighted_sum, within_samples


def variance(
    self: Tensor,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    """torch's ``var``: the sum of the squares of the differences from the mean, divided by ``n - 1``."""
    return var_mean(self, dim, unbiased, correction, keepdim)[0]


def standard_deviation(
    self: Tensor,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    """torch's ``std``: the square root of the variance."""
    return variance(self, dim, unbiased, correction, keepdim).sqrt()


def std_mean(
    self: Tensor,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """torch's ``std_mean``."""
    var, mean = var_mean(self, dim, unbiased, correction, keepdim)
    return var.sqrt(), mean


def var_mean(
    self: Tensor,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """torch's ``var_mean``.

    Raises:
        UnsupportedNodeError: it has no dimensions, the batch is among them, or it is of too few numbers.
    """
    dims = within_samples(dim, self.dim())
    subtracted = float(unbiased) if correction is None else float(correction)
    count = prod(self.shape[index] for index in dims)
    if count <= subtracted:
        raise UnsupportedNodeError(
            f"it is the variance of {count} number(s), which torch divides by {count - subtracted:g}",
            "pass correction=0",
        )
    mean = torch.mean(self, dims, keepdim=True)
    var = weighted_sum((self - mean).square(), dims, True, 1.0 / (count - subtracted))
    if not keepdim:
        var, mean = var.squeeze(dims), mean.squeeze(dims)
    return var, mean
