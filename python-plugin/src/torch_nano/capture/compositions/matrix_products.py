"""Matrix products with more than two operands or other orders of dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError
from ...ir.value import Value


def has_constant_matrix(arguments: Mapping[str, Any]) -> bool:
    """Whether one of the two operands of a product is the same in each run."""
    return not all(isinstance(arguments[name], Value) for name in ("self", "other"))


def constant_product(self: Tensor, other: Tensor) -> Tensor:
    """torch's ``matmul`` with a constant on one side: one matrix or vector is a linear layer, a batch of
    matrices a convolution with groups.

    Raises:
        UnsupportedNodeError: the constant has more dimensions than the tensor of the run.
    """
    # Only the tensor of the run has a symbol for its batch.
    left = not isinstance(self.shape[0], torch.SymInt)
    constant, tensor = (self, other) if left else (other, self)
    if constant.dim() > 2:
        y = _constant_matrices(*((constant, tensor) if left else (constant.mT, tensor.mT)))
        return y if left else y.mT
    if constant.dim() == 1:
        inner = other.mT if left else self
        return F.linear(inner, constant.unsqueeze(0)).squeeze(-1)
    if left:
        return F.linear(other.mT, constant).mT
    return F.linear(self, constant.t())


def _constant_matrices(matrices: Tensor, x: Tensor) -> Tensor:
    """``matrices @ x`` of constant [..., m, k] and x [N, ..., k, n]: each matrix is a group of channels."""
    if matrices.dim() > x.dim() or (matrices.dim() == x.dim() and matrices.shape[0] != 1):
        raise UnsupportedNodeError(
            f"it multiplies by a constant of shape {list(matrices.shape)}, and the other tensor has shape "
            f"{list(x.shape[1:])} besides the batch",
            "unsqueeze the tensor: x.unsqueeze(1) @ matrices",
        )
    rows, inner = matrices.shape[-2:]
    matrices = matrices.reshape(*(1,) * (x.dim() - matrices.dim()), *matrices.shape)[0]
    batch = [max(sides) for sides in zip(matrices.shape[:-2], x.shape[1:-2], strict=True)]
    weight = matrices.expand(*batch, -1, -1).reshape(-1, inner, 1)
    channels = x.expand(-1, *batch, -1, -1).reshape(x.shape[0], prod(batch) * inner, x.shape[-1])
    return F.conv1d(channels, weight, groups=prod(batch)).reshape(x.shape[0], *batch, rows, x.shape[-1])


def mm(self: Tensor, mat2: Tensor) -> Tensor:
    """torch's ``mm``."""
    return torch.matmul(self, mat2)


def addmm(self: Tensor, mat1: Tensor, mat2: Tensor, beta: float, alpha: float) -> Tensor:
    """torch's ``addmm``: ``beta * self + alpha * mat1 @ mat2``."""
    product = torch.matmul(mat1, mat2)
    return self * beta + product * alpha


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
    if not isinstance(tensors[0].shape[0], torch.SymInt):
        # The constant one is the second, as for a linear layer.
        names, tensors = names[::-1], tensors[::-1]
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

    def arranged(index: int, outer: list[str], sides: list[int]) -> Tensor:
        """The tensor as [*batch, *sides, inner], where sides are the lengths of outer dimensions."""
        order = [names[index].index(letter) for letter in (*batch, *outer, *inner)]
        of_batch = [sizes[letter] for letter in batch]
        return tensors[index].permute(order).reshape(*of_batch, *sides, _product(inner, sizes))

    # Joined, the rows would contain the batch of samples unless it is among the shared letters.
    of_rows = [_product(rows, sizes)] if batch else [sizes[letter] for letter in rows]
    left, right = arranged(0, rows, of_rows), arranged(1, columns, [_product(columns, sizes)])
    product = torch.matmul(left, right.mT)
    made = [*batch, *rows, *columns]
    product = product.reshape([sizes[letter] for letter in made])
    return product.permute([made.index(letter) for letter in output])


def _product(letters: Sequence[str], sizes: dict[str, int]) -> int:
    result = 1
    for letter in letters:
        result *= sizes[letter]
    return result


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """torch's ``bilinear``: a linear layer of ``input2``, whose results are a matrix times ``input1``."""
    outputs, features, _ = weight.shape
    matrices = F.linear(input2, weight.flatten(0, 1)).reshape(*input2.shape[:-1], outputs, features)
    y = torch.matmul(matrices, input1.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


def tensordot(self: Tensor, other: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Tensor:
    """torch's ``tensordot`` of a tensor of the run and a constant, as a linear layer.

    Raises:
        UnsupportedNodeError: the constant comes first, there is none, or the sum goes over the batch.
    """
    batches = [isinstance(tensor.shape[0], torch.SymInt) for tensor in (self, other)]
    summed = [dim % self.dim() for dim in dims_self]
    places = [dim % other.dim() for dim in dims_other]
    if batches != [True, False] or 0 in summed:
        raise UnsupportedNodeError(
            "it mixes the samples of a batch, or its result has the batch at another place",
            "use torch.tensordot(x, constant, dims) over dimensions of a sample, or x @ y of two tensors",
        )
    kept = [dim for dim in range(self.dim()) if dim not in summed]
    free = [dim for dim in range(other.dim()) if dim not in places]
    sides = [other.shape[dim] for dim in free]
    matrix = other.permute(*places, *free).reshape(-1, prod(sides))
    vectors = self.permute(*kept, *summed).flatten(len(kept))
    return torch.matmul(vectors, matrix).reshape(*(self.shape[dim] for dim in kept), *sides)
