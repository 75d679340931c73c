"""Inserts a requantize for inputs that cannot share a quantization with the other inputs."""

from __future__ import annotations

from ...arithmetic.quantization import Quantization
from ...ir.graph import Graph, Node
from ...ir.rules import Fixed, Own, SameAs, Shared
from ...ops.requantize import Requantize


def insert_requantize(graph: Graph) -> Graph:
    """Inserts a requantize before operators whose inputs and output share one quantization (concatenation).

    Each input with a fixed quantization (softmax) gets one, unless all inputs have the same quantization.
    """
    graph = graph.copy()
    #: Fixed quantizations by value name.
    fixed: dict[str, Quantization] = {}
    for node in list(graph.nodes):
        for name, rule in zip(node.outputs, node.operator.rules, strict=True):
            found = None
            match rule:
                case SameAs():
                    found = fixed.get(node.inputs[rule.input])
                case Fixed():
                    found = rule.quantization
                case Shared():
                    found = _join(graph, node, fixed)
                case Own():
                    pass
            if found is not None:
                fixed[name] = found
    graph.drop_unused()
    return graph


def _join(graph: Graph, node: Node, fixed: dict[str, Quantization]) -> Quantization | None:
    """Requantizes a node's inputs if they cannot share a quantization.

    Returns the fixed quantization that they share, if there is one.
    """
    found = {fixed.get(name) for name in node.inputs}
    if len(found) == 1:
        return found.pop()
    for index, name in enumerate(node.inputs):
        if name in fixed:
            source = graph.values[name]
            value = graph.new_value(f"{name}_requantized", source.shape, source)
            graph.nodes.insert(graph.nodes.index(node), Node(Requantize(), [name], [value.name]))
            node.inputs[index] = value.name
    return None
