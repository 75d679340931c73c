"""Matrix products with more than two operands or other orders of dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, beta: float, alpha: float) -> Tensor:
    """torch's ``baddbmm``: ``beta * self + alpha * batch1 @ batch2``."""
    product = torch.matmul(batch1 if alpha == 1 else batch1 * alpha, batch2)
    if beta == 0:
        return product
    return product + (self if beta == 1 else self * beta)


def einsum(equation: str, tensors: Sequence[Tensor], path: object) -> Tensor:
    """torch's ``einsum`` of two tensors, as one matrix product.

    Raises:
        UnsupportedNodeError: it has another number of tensors, repeats a letter in one of them, or sums one
            tensor alone.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if len(names) != 2 or not arrow or "." in equation or any(len(set(name)) < len(name) for name in names):
        raise UnsupportedNodeError(
            f"its equation is {equation!r}; expected two tensors, an arrow, and no letter twice in a tensor",
            "write it as torch.matmul, permute and sum",
        )
    first, second = names
    sizes = {
        letter: side
        for name, tensor in zip(names, tensors, strict=True)
        for letter, side in zip(name, tensor.shape, strict=True)
    }
    shared = [letter for letter in first if letter in second]
    batch, inner = ([c for c in shared if (c in output) is kept] for kept in (True, False))
    rows, columns = ([c for c in name if c not in shared] for name in names)
    if not set(rows + columns) <= set(output):
        raise UnsupportedNodeError(
            f"its equation {equation!r} sums over a dimension of one tensor alone",
            "sum that tensor before it",
        )

    def arranged(index: int, outer: list[str]) -> Tensor:
        """The tensor as [*batch, outer, inner]."""
        order = [names[index].index(letter) for letter in (*batch, *outer, *inner)]
        x = tensors[index].permute(order)
        sides = [sizes[letter] for letter in batch]
        return x.reshape(*sides, _product(outer, sizes), _product(inner, sizes))

    product = torch.matmul(arranged(0, rows), arranged(1, columns).mT)
    made = [*batch, *rows, *columns]
    product = product.reshape([sizes[letter] for letter in made])
    return product.permute([made.index(letter) for letter in output])


def _product(letters: Sequence[str], sizes: dict[str, int]) -> int:
    result = 1
    for letter in letters:
        result *= sizes[letter]
    return result
