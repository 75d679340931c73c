"""Where a tensor has its batch, and the same tensor with the batch first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

#: Batch sizes that show whether a length is a multiple of them.
_SIZES = (2, 3, 7)


class BatchLayout(NamedTuple):
    """The place of the batch in a tensor, whose samples may be joined with another dimension.

    The dimension `batch` has the length ``outer * N * inner``. With the batch first, the tensor is [N, the
    dimensions before, outer, inner, the dimensions after], without an outer or inner length of 1.

    >>> BatchLayout(1, inner=4).dims(1, 3), BatchLayout(1, inner=4).dims(2, 3)
    ([0, 2], [3])
    """

    batch: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def joined(self) -> list[int]:
        """The lengths that the batch is joined with."""
        return [length for length in (self.outer, self.inner) if length != 1]

    def dims(self, dim: int, rank: int) -> list[int]:
        """The dimensions with the batch first that a dimension of a tensor of this rank is."""
        dim %= rank
        if dim == self.batch:
            return [0, *range(dim + 1, dim + 1 + len(self.joined))]
        return [dim + 1 if dim < self.batch else dim + len(self.joined)]

    def sample(self, sides: Sequence[int]) -> list[int]:
        """The lengths of one sample with the batch first; `sides` are those of the tensor, any for the
        batch.
        """
        return [*sides[: self.batch], *self.joined, *sides[self.batch + 1 :]]

    def reshaped(
        self, before: Sequence[int], after: Sequence[int], batch: int, multiple: int
    ) -> BatchLayout | None:
        """The layout after a reshape from `before` to `after`, which has `multiple` * N at `batch`.

        None if the reshape takes samples apart.

        >>> BatchLayout().reshaped([0, 6, 5], [0, 5], 0, 6)
        BatchLayout(batch=0, outer=1, inner=6)
        """
        outer, rest = divmod(prod(before[: self.batch]) * self.outer, prod(after[:batch]))
        if rest or not outer or multiple % outer:
            return None
        return BatchLayout(batch, outer, multiple // outer)


def batch_of(value: object, symbols: Collection[Any]) -> tuple[int, int] | None:
    """The dimension of a tensor that is a multiple of the batch, and the multiple.

    Args:
        value: a tensor, or several of one batch.
        symbols: the symbolic batch sizes.

    Returns:
        None if it has no such dimension, or several.
    """
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        return None
    sides: tuple[Any, ...] = tuple(value.shape)
    found = [
        (index, multiple)
        for index, side in enumerate(sides)
        if isinstance(side, torch.SymInt) and (multiple := _multiple(side.node.expr, symbols))
    ]
    return found[0] if len(found) == 1 else None


def _multiple(length: Any, symbols: Collection[Any]) -> int:
    """How many times a symbolic length is a batch size; 0 if it is no such multiple."""
    if len(length.free_symbols) != 1 or not length.free_symbols <= set(symbols):
        return 0
    (symbol,) = length.free_symbols
    first, *others = ((size, length.subs(symbol, size)) for size in _SIZES)
    multiple = int(first[1]) // first[0]
    return multiple if all(value == multiple * size for size, value in (first, *others)) else 0


def sides_of(node: fx.Node) -> list[int]:
    """The lengths of a tensor; 1 for one that is symbolic."""
    return [side if isinstance(side, int) else 1 for side in node.meta["val"].shape]
