"""What a model does to its inputs before all else becomes the scales of their channels."""

from __future__ import annotations

from dataclasses import replace

from ...ir.affine import Affine, AffineOperator
from ...ir.graph import Graph, Node


def take_input_affines(graph: Graph) -> Graph:
    """Takes the batch norms and arithmetic with constants in front of the network off the graph, and keeps
    them as :attr:`Graph.affines`.

    They stay where others read the input too, or where the model returns what they make.
    """
    graph = graph.copy()
    for name in graph.inputs:
        while (node := _affine_of(graph, name)) is not None:
            _take(graph, name, node)
    graph.drop_unused()
    return graph


def _affine_of(graph: Graph, name: str) -> Node | None:
    """The affine node that alone reads a value, if it can be taken off."""
    node = graph.only_reader(name)
    if node is None or not isinstance(node.operator, AffineOperator) or node.output in graph.outputs:
        return None
    return None if graph.values[name].dropouts else node


def _take(graph: Graph, name: str, node: Node) -> None:
    assert isinstance(node.operator, AffineOperator)
    affine = Affine(node.operator, node.parameters, graph.module_path(node))
    graph.affines[name] = (*graph.affines.get(name, ()), affine)
    output = graph.values[node.output]
    graph.values[name] = replace(graph.values[name], dropouts=output.dropouts)
    graph.nodes = [other for other in graph.nodes if other is not node]
    graph.redirect(node.output, name)
    del graph.values[node.output]
