"""Division of two tensors."""

from __future__ import annotations

from torch import Tensor


def quotient(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``div``: the product with the reciprocal.

    Its relative error is that of the reciprocal in 8 bits: divisors should stay within a factor of 10.
    """
    return self * other.reciprocal()
