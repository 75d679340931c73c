"""Inserts a requantize where an operator takes other dtypes or another quantization than its input has."""

from __future__ import annotations

from ...arithmetic.quantization import Dtype, Quantization
from ...ir.graph import Graph, Node
from ...ir.rules import Fixed, Own, SameAs, Shared
from ...ops.requantize import Requantize

#: A value before ranges are known: its fixed quantization, or else its dtype.
_Kind = Quantization | Dtype


def insert_requantize(graph: Graph) -> Graph:
    """Inserts a requantize of inputs of a dtype that their reader does not take, and before operators whose
    inputs and output share one quantization (concatenation).

    Of inputs that must share one, each with a fixed quantization (softmax) is requantized, and each of
    another dtype than the widest that a requantize makes, unless all inputs have the same.
    """
    graph = graph.copy()
    kinds: dict[str, _Kind] = {name: graph.dtypes.get(name, "int8") for name in graph.inputs}
    for node in list(graph.nodes):
        for index, name in enumerate(node.inputs):
            if _dtype(kinds[name]) not in node.operator.input_dtypes:
                _requantize(graph, node, index, "int8", kinds)
        for name, rule in zip(node.outputs, node.operator.rules, strict=True):
            match rule:
                case Own():
                    kinds[name] = rule.dtype or graph.dtypes.get(name, "int8")
                case SameAs():
                    kinds[name] = kinds[node.inputs[rule.input]]
                case Fixed():
                    kinds[name] = rule.quantization
                case Shared():
                    kinds[name] = _join(graph, node, kinds)
    graph.drop_unused()
    return graph


def _dtype(kind: _Kind) -> str:
    return kind.dtype if isinstance(kind, Quantization) else kind


def _join(graph: Graph, node: Node, kinds: dict[str, _Kind]) -> _Kind:
    """Requantizes a node's inputs if they cannot share a quantization; returns what they share."""
    found = {kinds[name] for name in node.inputs}
    if len(found) == 1:
        return found.pop()
    dtypes = {_dtype(kind) for kind in found}
    shared: Dtype = "int8" if dtypes == {"int8"} else "int16"
    for index, name in enumerate(node.inputs):
        if kinds[name] != shared:
            _requantize(graph, node, index, shared, kinds)
    return shared


def _requantize(graph: Graph, node: Node, index: int, dtype: Dtype, kinds: dict[str, _Kind]) -> None:
    """Requantizes an input of a node to a dtype, if there is such a requantize."""
    name = node.inputs[index]
    if _dtype(kinds[name]) not in Requantize.input_dtypes or dtype not in node.operator.input_dtypes:
        return
    source = graph.values[name]
    value = graph.new_value(f"{name}_requantized", source.shape, source)
    graph.nodes.insert(graph.nodes.index(node), Node(Requantize(), [name], [value.name]))
    node.inputs[index] = value.name
    kinds[value.name] = dtype
    if dtype != "int8":
        graph.dtypes[value.name] = dtype
