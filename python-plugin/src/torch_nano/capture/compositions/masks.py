"""Selections by a mask that is the same in each run, as arithmetic with constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...ir.value import Value


def has_constant_mask(arguments: Mapping[str, Any]) -> bool:
    """Whether a selection's mask is the same in each run."""
    return not isinstance(arguments.get("condition", arguments.get("mask")), Value)


def where(condition: Tensor, self: Tensor | float, other: Tensor | float) -> Tensor:
    """torch's ``where``: each side is multiplied by 1 where it is chosen, else by 0."""
    like = next(side for side in (self, other) if isinstance(side, Tensor))
    chosen, rest = condition.to(like.dtype), torch.logical_not(condition).to(like.dtype)
    return _part(condition, self, chosen) + _part(torch.logical_not(condition), other, rest)


def masked_fill(self: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """torch's ``masked_fill``: ``self`` outside of the mask, ``value`` inside."""
    return where(mask, value, self)


def _part(chosen: Tensor, side: Tensor | float, factor: Tensor) -> Tensor:
    if isinstance(side, Tensor):
        return side * factor
    # Not a product: infinity times 0 is NaN.
    return torch.where(chosen, side, 0.0).to(factor.dtype)
