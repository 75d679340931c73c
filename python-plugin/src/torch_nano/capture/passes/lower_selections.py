"""Lowers the remaining selections to sums of products."""

from __future__ import annotations

from ...ir.graph import Graph, Node
from ...ir.value import Value
from ...ops.add import Add
from ...ops.mul import Mul
from ...ops.table import Table
from ..selection import Select


def lower_selections(graph: Graph) -> Graph:
    """Replaces every selection that is no function of one variable by ``mask * a + (1 - mask) * b``.

    A number stands for a product with it; next to a 0 there is no sum.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, Select):
            _lower(graph, node)
    graph.drop_unused()
    return graph


def _lower(graph: Graph, node: Node) -> None:
    assert isinstance(node.operator, Select)
    mask, *tensors = node.inputs
    numbers, sides = dict(node.operator.numbers), iter(tensors)
    made: list[Node] = []

    def value(shape_of: str) -> Value:
        return graph.new_value(f"{node.output}_part", graph.values[shape_of].shape, graph.values[node.output])

    def table(function: str, source: str, **arguments: float) -> str:
        result = value(source).name
        made.append(Node(Table(function, tuple(arguments.items())), [source], [result]))
        return result

    parts: list[str] = []
    for name in ("self", "other"):
        if numbers.get(name) == 0 and len(numbers) < 2:
            continue
        chosen = mask if name == "self" else table("logical_not", mask)
        if name in numbers:
            parts.append(table("mul.Scalar", chosen, other=numbers[name]))
        else:
            parts.append(value(node.output).name)
            made.append(Node(Mul(), [chosen, next(sides)], [parts[-1]]))
    if len(parts) == 2:
        made.append(Node(Add(), parts, [node.output]))
    else:
        made[-1].outputs = [node.output]
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = made
