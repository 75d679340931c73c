"""Rows of a constant table by indices that depend on the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError
from ...ir.value import Value


def is_lookup(target: torch._ops.OpOverload[..., Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a call is ``table[indices]`` with a constant table."""
    return target is torch.ops.aten.index.Tensor and has_constant_table(arguments)


def has_constant_table(arguments: Mapping[str, Any]) -> bool:
    """Whether an indexed tensor is the same in each run, and the indices are not."""
    return not isinstance(arguments["self"], Value)


def index(self: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """torch's ``index`` of a table: ``table[indices]``.

    Raises:
        UnsupportedNodeError: the table has not two dimensions, or the indices are not those of its rows.
    """
    first, *others = indices
    if first is None or others or self.dim() != 2:
        raise UnsupportedNodeError(
            f"it looks up other parts than rows of a table, of a tensor of shape {list(self.shape)}",
            "make it a table of two dimensions, [rows, channels], and use table[indices]",
        )
    return F.embedding(first, self)
