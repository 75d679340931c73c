"""Normalizations that a model writes out: ``(x - mean) / sqrt(var + eps)``, ``x / norm`` and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import fx

from .expansion import arguments_of, insert_call, is_symbolic
from .vanishing import KEEPS_NUMBERS

aten = torch.ops.aten

_SUMS = frozenset({aten.add.Tensor})
_DIFFERENCES = frozenset({aten.sub.Tensor})
_PRODUCTS = frozenset({aten.mul.Tensor})
_QUOTIENTS = frozenset({aten.div.Tensor})
_VARIANCES = frozenset({aten.var.dim, aten.var.correction})
_DEVIATIONS = frozenset({aten.std.dim, aten.std.correction})
_MEANS = (aten.mean.dim, aten.sum.dim_IntList)
_EXPANSIONS = frozenset({aten.expand.default, aten.expand_as.default})
#: What may be added to a standard deviation, or be its least: its square then counts as epsilon under the
#: root. Both differ only where deviations are as small, by less than half.
_NEGLIGIBLE = 1e-5
_SQUARES = frozenset({aten.square.default})
_POWERS = frozenset({aten.pow.Tensor_Scalar})


def join_normalizations(calls: fx.Graph) -> None:
    """Replaces the calls of each such normalization by one, without the weight and bias after it.

    The calls of a spelling are found by what they compute: a mean of squares by ``pow``, ``square`` or a
    product, a variance, a standard deviation or a norm; the root by ``sqrt``, ``rsqrt`` or ``pow``.
    """
    for node in list(calls.nodes):
        weight, found = None, _normalization(node)
        if found is None and node.target in _QUOTIENTS:
            weight, found = _of_weighted(node)
        if found is None:
            continue
        made = _call(node, found)
        if weight is not None:
            made = insert_call(node, aten.mul.Tensor, self=made, other=weight)
        node.replace_all_uses_with(made)
        calls.erase_node(node)
    calls.eliminate_dead_code()


@dataclass(frozen=True)
class _Spread:
    """A number for each row of x over dimensions: a multiple of its variance, or of the mean of its squares,
    plus epsilon.
    """

    x: fx.Node
    dims: tuple[int, ...]
    centered: bool
    epsilon: float = 0.0
    #: Such as n / (n - 1) of an unbiased variance, n of a sum.
    multiple: float = 1.0


def _of_weighted(node: fx.Node) -> tuple[fx.Node | None, _Spread | None]:
    """The weight and the spread of a quotient ``weight * (x - mean) / root``."""
    product = _plain(node.args[0])
    if not isinstance(product, fx.Node) or product.target not in _PRODUCTS:
        return None, None
    for weight, numerator in (product.args[:2], product.args[1::-1]):
        if isinstance(weight, fx.Node) and not is_symbolic(weight):
            return weight, _normalization(node, numerator)
    return None, None


def _normalization(node: fx.Node, numerator: Any = None) -> _Spread | None:
    """What a node normalizes x by; None if it is no normalization.

    Args:
        numerator: of a quotient, in place of its own.
    """
    if node.target in _QUOTIENTS:
        numerator, root = node.args[0] if numerator is None else numerator, node.args[1]
        spread = _of_root(root, 0.5)
    elif node.target in _PRODUCTS:
        numerator, root = node.args[0], node.args[1]
        spread = _of_root(root, -0.5)
        if spread is None:
            numerator, root = root, numerator
            spread = _of_root(root, -0.5)
    else:
        return None
    if spread is None or not isinstance(numerator, fx.Node) or 0 in spread.dims or not spread.multiple:
        return None
    # Of a mean of squares of x - mean(x), what is normalized is that difference.
    of_numerator = _centered(numerator)
    if spread.centered:
        right = (
            of_numerator is not None and _same(of_numerator.x, spread.x) and of_numerator.dims == spread.dims
        )
    else:
        right = _same(numerator, spread.x)
        if right and of_numerator is not None and of_numerator.dims == spread.dims:
            spread = replace(spread, x=of_numerator.x, centered=True)
    return spread if right and tuple(node.meta["val"].shape) == tuple(spread.x.meta["val"].shape) else None


def _of_root(node: Any, exponent: float) -> _Spread | None:
    """The spread of which a node is the power; an exponent of 0.5 or -0.5."""
    node = _plain(node)
    if not isinstance(node, fx.Node):
        return None
    if node.target is aten.reciprocal.default:
        return _of_root(node.args[0], -exponent)
    if node.target in _PRODUCTS and node.args[1] == 1.0:
        # 1.0 / y is reciprocal(y) * 1.0.
        return _of_root(node.args[0], exponent)
    if exponent == 0.5 and (found := _deviation(node)) is not None:
        return found
    roots: dict[Any, float] = {
        aten.sqrt.default: 0.5,
        aten.rsqrt.default: -0.5,
    }
    given = node.args[1] if node.target in _POWERS else roots.get(node.target)
    return _spread(node.args[0]) if given == exponent else None


def _deviation(node: fx.Node) -> _Spread | None:
    """A standard deviation or a norm, with a small number added or as its least."""
    least = 0.0
    if node.target in _EXPANSIONS:
        node = node.all_input_nodes[0]
    if node.target in (aten.clamp_min.default, *_SUMS) and isinstance(node.args[1], int | float):
        least = float(node.args[1])
        node = node.all_input_nodes[0]
    if not 0.0 <= least <= _NEGLIGIBLE or not isinstance(node.target, torch._ops.OpOverload):
        return None
    if node.target in _DEVIATIONS:
        found = _variance(node)
    elif node.target is aten.linalg_vector_norm.default:
        arguments = arguments_of(node, node.target)
        dims = _dims(arguments["self"], arguments["dim"])
        if arguments["ord"] != 2 or not arguments["keepdim"] or not dims:
            return None
        found = _Spread(arguments["self"], dims, False, multiple=_count(arguments["self"], dims))
    else:
        return None
    return None if found is None else replace(found, epsilon=least**2)


def _spread(node: Any) -> _Spread | None:
    """A variance, or a mean or sum of squares, with epsilon or without."""
    node = _plain(node)
    if not isinstance(node, fx.Node):
        return None
    if node.target in _SUMS:
        numbers = [argument for argument in node.args if isinstance(argument, int | float)]
        others = [argument for argument in node.args if isinstance(argument, fx.Node)]
        if len(numbers) != 1 or len(others) != 1 or node.kwargs.get("alpha", 1) != 1:
            return None
        found = _spread(others[0])
        return None if found is None or found.epsilon else replace(found, epsilon=float(numbers[0]))
    if node.target in _VARIANCES:
        return _variance(node)
    squares = _mean(node, _MEANS)
    squared = None if squares is None else _squared(squares.x)
    return None if squared is None or squares is None else replace(squares, x=squared)


def _variance(node: fx.Node) -> _Spread | None:
    assert isinstance(node.target, torch._ops.OpOverload)
    arguments = arguments_of(node, node.target)
    dims = _dims(arguments["self"], arguments["dim"])
    given = arguments.get("correction", arguments.get("unbiased", 1))
    subtracted, count = 1.0 if given is None else float(given), _count(arguments["self"], dims)
    if not arguments["keepdim"] or not dims or subtracted >= count:
        return None
    return _Spread(arguments["self"], dims, True, multiple=count / (count - subtracted))


def _centered(node: Any) -> _Spread | None:
    """x - mean(x), with x and the dimensions."""
    node = _plain(node)
    if not isinstance(node, fx.Node) or node.target not in _DIFFERENCES or node.kwargs.get("alpha", 1) != 1:
        return None
    x, mean = node.args[0], _mean(node.args[1])
    if mean is None or not isinstance(x, fx.Node) or not _same(x, mean.x):
        return None
    return _Spread(x, mean.dims, True)


def _mean(node: Any, targets: Sequence[Any] = (aten.mean.dim,)) -> _Spread | None:
    """A mean, or a sum, over dimensions that are kept, with what it is of."""
    node = _plain(node)
    if not isinstance(node, fx.Node) or node.target not in targets:
        return None
    arguments = arguments_of(node, node.target)  # type: ignore[arg-type]
    dims = _dims(arguments["self"], arguments["dim"])
    if not arguments["keepdim"] or not dims:
        return None
    multiple = 1.0 if node.target is aten.mean.dim else _count(arguments["self"], dims)
    return _Spread(arguments["self"], dims, False, multiple=multiple)


def _squared(node: Any) -> fx.Node | None:
    """What a node is the square of."""
    node = _plain(node)
    if not isinstance(node, fx.Node):
        return None
    x = node.args[0] if node.args else None
    is_square = (
        node.target in _SQUARES
        or (node.target in _POWERS and node.args[1] == 2)
        or (node.target in _PRODUCTS and _same(x, node.args[1]))
    )
    return x if is_square and isinstance(x, fx.Node) else None


def _dims(x: fx.Node, dims: Sequence[int] | None) -> tuple[int, ...]:
    rank = len(x.meta["val"].shape)
    return tuple(sorted(dim % rank for dim in dims or ()))


def _count(x: fx.Node, dims: Sequence[int]) -> float:
    """The number of elements of a row; 0 if it is not known."""
    sides = [x.meta["val"].shape[dim] for dim in dims]
    return float(prod(sides)) if all(isinstance(side, int) for side in sides) else 0.0


def _plain(node: Any) -> Any:
    """A node without the calls between that keep its numbers."""
    while isinstance(node, fx.Node) and node.target in KEEPS_NUMBERS:
        node = node.args[0]
    return node


def _same(a: Any, b: Any) -> bool:
    """Whether two nodes are one, or the same call of the same."""
    a, b = _plain(a), _plain(b)
    if a is b or not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
        return a is b or (not isinstance(a, fx.Node) and a == b)
    if a.op != "call_function" or a.target is not b.target:
        return False
    pairs = zip(a.args, b.args, strict=False)
    return len(a.args) == len(b.args) and a.kwargs == b.kwargs and all(_same(*pair) for pair in pairs)


def _call(node: fx.Node, spread: _Spread) -> fx.Node:
    """The normalization over the last dimensions, moved there and back if it is over others."""
    x, shape = spread.x, spread.x.meta["val"].shape
    rank, count = len(shape), len(spread.dims)
    order = [*(dim for dim in range(rank) if dim not in spread.dims), *spread.dims]
    moves = order != list(range(rank))
    if moves:
        x = insert_call(node, aten.permute.default, self=x, dims=order)
    sides = [int(side) for side in x.meta["val"].shape[rank - count :]]
    given = {"input": x, "normalized_shape": sides, "weight": None, "eps": spread.epsilon / spread.multiple}
    if spread.centered:
        y = insert_call(node, aten.layer_norm.default, bias=None, **given)
    else:
        y = insert_call(node, aten.rms_norm.default, **given)
    if spread.multiple != 1.0:
        y = insert_call(node, aten.mul.Tensor, self=y, other=spread.multiple**-0.5)
    if moves:
        y = insert_call(node, aten.permute.default, self=y, dims=[order.index(dim) for dim in range(rank)])
    return y
