"""Masks: comparisons of tensors, and selections by a mask that is the same in each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    return torch.where(mask, value, self)


def compared(relation: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A comparison of two tensors (relation "gt", "ge", "lt" or "le"): that of their difference with 0."""

    def comparison(self: Tensor, other: Tensor) -> Tensor:
        result: Tensor = getattr(self - other, relation)(0.0)
        return result

    return comparison


def logical_and(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``logical_and``, and ``&`` of truth values: the product."""
    return self * other


def logical_not(self: Tensor) -> Tensor:
    """torch's ``~`` of truth values."""
    return self.logical_not()


def logical_or(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``logical_or``, and ``|`` of truth values: what is not false on both sides."""
    return (self.logical_not() * other.logical_not()).logical_not()


def logical_xor(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``logical_xor``, and ``^`` of truth values: one side, and not the other."""
    return torch.where(self, other.logical_not(), other)


def _part(chosen: Tensor, side: Tensor | float, factor: Tensor) -> Tensor:
    if isinstance(side, Tensor):
        return side * factor
    # Not a product: infinity times 0 is NaN.
    return torch.where(chosen, side, 0.0).to(factor.dtype)
