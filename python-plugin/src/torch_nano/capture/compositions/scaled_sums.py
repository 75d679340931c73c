"""Sums of two tensors, one of which is multiplied by ``alpha``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def has_alpha(arguments: Mapping[str, Any]) -> bool:
    """Whether a sum multiplies one of its operands."""
    return bool(arguments["alpha"] != 1)


def scaled_add(self: Tensor, other: Tensor | float, alpha: float) -> Tensor:
    """torch's ``add`` with alpha."""
    return self + other * alpha


def scaled_sub(self: Tensor, other: Tensor | float, alpha: float) -> Tensor:
    """torch's ``sub`` with alpha."""
    return self - other * alpha


def scaled_rsub(self: Tensor, other: Tensor | float, alpha: float) -> Tensor:
    """torch's ``rsub`` with alpha."""
    return other - self * alpha
