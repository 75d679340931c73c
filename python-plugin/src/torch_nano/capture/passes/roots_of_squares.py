"""Finds the values between squares and their root, for which int8 is too coarse."""

from __future__ import annotations

import torch

from ...ir.graph import Graph, Node
from ...ir.precision import offers
from ...ops.table import TableOperator

#: Operators that may stand between a square and a root: sums, means, products, data movement.
_BETWEEN = frozenset(
    {
        "add",
        "average_pool2d",
        "conv2d",
        "depthwise_conv2d",
        "fully_connected",
        "move",
        "mul",
        "requantize",
        "sub",
    }
)
#: How much steeper a root is near 0 than at 1, at least.
_STEEPER = 16.0


def roots_of_squares(graph: Graph) -> set[str]:
    """The names of the nodes that compute a root (or logarithm) of squares, from the squares on: standard
    deviations, norms, :class:`torch.nn.LPPool2d`, energies in decibels, also if they are written out.

    Numbers over two decades have squares over four. In int8 most of the squares are one of a few integers,
    and their root, which spreads the small ones apart again, has as few levels. Nodes of which
    :attr:`Graph.dtypes` wants int8 are left out, with all that lead through them.
    """
    producers = {name: node for node in graph.nodes for name in node.outputs}
    found: dict[str, set[str]] = {}

    def may_be_wide(node: Node) -> bool:
        return offers(node, "int16") and graph.dtypes.get(node.name) != "int8"

    def from_squares(value: str) -> set[str]:
        """The nodes from squares to a value; none if no squares lead to it."""
        if value not in found:
            node = producers.get(value)
            if node is None or not may_be_wide(node):
                found[value] = set()
            elif _is_square(node):
                found[value] = {node.name}
            elif node.operator.name in _BETWEEN:
                before = set().union(*map(from_squares, node.inputs))
                found[value] = {node.name, *before} if before else before
            else:
                found[value] = set()
        return found[value]

    names: set[str] = set()
    for node in graph.nodes:
        if _is_root(node) and may_be_wide(node):
            before = from_squares(node.inputs[0])
            names |= {node.name, *before} if before else before
    return names


def _is_square(node: Node) -> bool:
    """Whether a node multiplies a value by itself, or is another even function that vanishes at 0 faster
    than its input.
    """
    operator = node.operator
    if not isinstance(operator, TableOperator):
        return operator.name == "mul" and node.inputs[0] == node.inputs[1]
    x = torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64)
    at_zero, small, one = operator.function_of(x).abs().tolist()
    is_even = torch.equal(operator.function_of(-x), operator.function_of(x))
    return is_even and at_zero == 0 and 0 < small < 0.001 * one


def _is_root(node: Node) -> bool:
    """Whether a node is a function that is much steeper near 0 than at 1."""
    if not isinstance(node.operator, TableOperator):
        return False
    x = torch.tensor([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.0], dtype=torch.float64)
    *slopes, at_one = (
        ((node.operator.function_of(x * 1.001) - node.operator.function_of(x)) / x).abs().tolist()
    )
    return bool(max(slopes) > _STEEPER * at_one > 0)
