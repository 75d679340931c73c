"""Takes the normalization of a model's inputs off the graph: it becomes the inputs' scales per channel."""

from __future__ import annotations

from ...ir.affine import Affine, AffineOperator
from ...ir.graph import Graph, Node
from ...ops.move import Move


def take_input_affines(graph: Graph) -> Graph:
    """Moves batch norms and arithmetic with constants at the network's inputs to :attr:`Graph.affines`.

    They stay in the graph if the input has other readers, or if the model returns their result.
    """
    graph = graph.copy()
    for name in graph.inputs:
        while (found := _first_affine(graph, name)) is not None:
            _take(graph, name, *found)
    graph.drop_unused()
    return graph


def _first_affine(graph: Graph, name: str) -> tuple[str, Node] | None:
    """The affine node that can be taken off an input, and the value that it reads.

    The value is the input, or the result of moves of it if the node has the same factor and shift for all
    channels.
    """
    source, reader = name, graph.only_reader(name)
    while reader is not None and isinstance(reader.operator, Move) and not graph.values[source].dropouts:
        if reader.operator.adds_zeros(graph.values[source].shape):
            return None
        source, reader = reader.output, graph.only_reader(reader.output)
    if (
        reader is None
        or not isinstance(reader.operator, AffineOperator)
        or reader.output in graph.outputs
        or graph.values[source].dropouts
        or not (source == name or _is_uniform(graph, reader))
    ):
        return None
    return source, reader


def _is_uniform(graph: Graph, node: Node) -> bool:
    assert isinstance(node.operator, AffineOperator)
    parameters = {role: graph.parameters[name] for role, name in node.parameters.items()}
    return all(number.numel() == 1 for number in node.operator.scale_and_shift(parameters))


def _take(graph: Graph, name: str, source: str, node: Node) -> None:
    """Takes a node off the graph that reads `source`: input `name`, or the result of moves of it."""
    assert isinstance(node.operator, AffineOperator)
    affine = Affine(node.operator, node.parameters, graph.module_path(node))
    graph.affines[name] = (*graph.affines.get(name, ()), affine)
    graph.values[source].dropouts = graph.values[node.output].dropouts
    graph.nodes = [other for other in graph.nodes if other is not node]
    graph.redirect(node.output, source)
    del graph.values[node.output]
