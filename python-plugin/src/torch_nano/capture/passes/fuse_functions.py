"""Fuses functions of one variable that follow each other into one table."""

from __future__ import annotations

from ...ir.graph import Graph, Node
from ...ops._pairwise import PairwiseOperator
from ...ops.activation import Activation
from ...ops.expression import Expression, Step
from ...ops.table import Table
from ..selection import Select


def fuse_functions(graph: Graph) -> Graph:
    """Replaces elementwise operators that together depend on a single value by one table.

    These are chains (``exp(-x)``), sums and products of functions of one value (``x * sigmoid(x)``), and
    selections among them (``where(x > 0, x, exp(x))``), without other readers between them.
    """
    graph = graph.copy()
    for node in reversed(list(graph.nodes)):
        # Nodes that are fused already are no longer in the graph.
        if any(other is node for other in graph.nodes) and _is_function(node):
            _fuse(graph, node)
    graph.drop_unused()
    return graph


def _is_function(node: Node) -> bool:
    return isinstance(node.operator, Table | Activation | PairwiseOperator | Select)


def _fuse(graph: Graph, end: Node) -> None:
    """Fuses the largest expression that ends with a node."""
    order = {name: index for index, name in enumerate(graph.values)}
    # In reverse order of execution.
    group, best, root = [end], [end], ""
    while True:
        outside = {name for node in group for name in node.inputs} - {node.output for node in group}
        if len(outside) == 1:
            (root,) = outside
            best = list(group)
        # The last one in order of execution: no other value of the expression depends on it.
        name = max(outside, key=order.__getitem__)
        before = graph.producer(name)
        if before is None or not _is_function(before) or not _is_inside(graph, name, group):
            break
        group.append(before)
    if len(best) < 2 or len({graph.values[node.output].shape for node in best}) > 1:
        return
    if graph.values[root].shape != graph.values[end.output].shape:
        return
    end.operator, end.inputs = Expression(_steps(best[::-1], root)), [root]
    graph.nodes = [node for node in graph.nodes if node is end or not any(node is other for other in best)]


def _is_inside(graph: Graph, name: str, group: list[Node]) -> bool:
    """Whether only the nodes of a group read a value, as it is."""
    readers = graph.consumers(name)
    inside = all(any(reader is node for node in group) for reader in readers)
    return inside and name not in graph.outputs and not graph.values[name].dropouts


def _steps(nodes: list[Node], root: str) -> tuple[Step, ...]:
    """The calls of nodes, in order of execution, as an expression of `root`."""
    steps: list[Step] = []
    number = {root: 0}
    for node in nodes:
        operator, operands = node.operator, tuple(number[name] for name in node.inputs)
        if isinstance(operator, Table):
            steps.append((operator.function, operands, operator.arguments))
        elif isinstance(operator, Activation):
            steps.append(_clamp(operands, operator.low, operator.high))
        elif isinstance(operator, Select):
            steps.append((operator.function, operands, operator.numbers))
        else:
            assert isinstance(operator, PairwiseOperator)
            steps.append((f"{operator.name}.Tensor", operands, ()))
            if operator != operator.without_clamp():
                steps.append(_clamp((len(steps),), operator.clamp_low, operator.clamp_high))
        number[node.output] = len(steps)
    return tuple(steps)


def _clamp(operands: tuple[int, ...], low: float | None, high: float | None) -> Step:
    return "clamp", operands, (("min", low), ("max", high))
