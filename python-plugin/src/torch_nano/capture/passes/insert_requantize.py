"""Gives each value its dtype, and inserts a requantize where a reader takes another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...arithmetic.quantization import INDICES, Dtype, Quantization
from ...errors import QuantizationError, in_module
from ...ir.graph import Graph, Node
from ...ir.rules import Fixed, Own, SameAs, Shared, Signature
from ...ops.average_pool2d import AveragePool2d
from ...ops.requantize import Requantize
from .roots_of_squares import roots_of_squares

#: A value before ranges are known: its fixed quantization, or else its dtype.
_Kind = Quantization | Dtype


def with_dtypes(graph: Graph, wanted: Mapping[str, Dtype]) -> Graph:
    """An optimized graph with other dtypes.

    Args:
        wanted: as :attr:`Graph.dtypes` before :func:`insert_requantize`; names that the graph lacks are
            ignored.

    Raises:
        QuantizationError: an operator has no kernel of the dtype that is wanted; it names the module.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, Requantize):
            graph.remove(node)
    graph.dtypes = {name: dtype for name, dtype in wanted.items() if name in graph.values}
    return insert_requantize(graph)


def dtypes_of(quantized: Graph) -> dict[str, Dtype]:
    """What :func:`with_dtypes` wanted of a graph that is quantized now."""
    # A root that is requantized to be returned is wide by default: otherwise it is returned as it is.
    roots = roots_of_squares(quantized)
    by_default = {
        node.inputs[0]
        for node in quantized.nodes
        if isinstance(node.operator, Requantize)
        and node.output in quantized.outputs
        and node.inputs[0] in roots
    }
    return {name: _dtype(quantized.quantization(name)) for name in quantized.values if name not in by_default}


def insert_requantize(graph: Graph) -> Graph:
    """Inserts a requantize of inputs of a dtype that their reader does not take, and before operators whose
    inputs and output share one quantization (concatenation).

    A node takes and makes the dtype that :attr:`Graph.dtypes` wants under its name. Without one, operators
    whose output has the quantization of an input follow that input if they can, and others compute in int8.
    Readers that need a value in the same dtype share one requantize. Of inputs that must share a
    quantization, each with a fixed one (softmax) is requantized by itself, and each of another dtype.
    Roots of squares (:func:`.roots_of_squares.roots_of_squares`) are computed in int16 unless int8 is wanted,
    and become int8 for all other nodes and for the graph's outputs.

    Raises:
        QuantizationError: an operator has no kernel of the dtype that is wanted; it names the module.
    """
    graph = graph.copy()
    roots = roots_of_squares(graph)
    by_default = roots - graph.dtypes.keys()
    graph.dtypes |= dict.fromkeys(by_default, "int16")
    kinds: dict[str, _Kind] = {
        name: INDICES if graph.values[name].index_limit is not None else graph.dtypes.get(name, "int8")
        for name in graph.inputs
    }
    made: dict[tuple[str, Dtype], str] = {}
    for node in list(graph.nodes):
        given = [
            "int8" if name in by_default and node.name not in roots else _dtype(kinds[name])
            for name in node.inputs
        ]
        signature = _signature(graph, node, given)
        if Shared() in node.operator.rules:
            _join(graph, node, signature, kinds)
        else:
            for index, name in enumerate(node.inputs):
                dtype = signature.input(index)
                if _dtype(kinds[name]) != dtype and (name, dtype) not in made:
                    made[name, dtype] = _requantize(graph, node, name, dtype, kinds)
                node.inputs[index] = made.get((name, dtype), name)
        for index, (name, rule) in enumerate(zip(node.outputs, node.operator.rules, strict=True)):
            match rule:
                case Own():
                    kinds[name] = signature.output(index)
                case SameAs():
                    kinds[name] = kinds[node.inputs[rule.input]]
                case Fixed():
                    kinds[name] = rule.quantization
                case Shared():
                    kinds[name] = kinds[node.inputs[0]]
        # A mean of squares is a small part of their range.
        if node.name in roots and isinstance(node.operator, AveragePool2d):
            readers = [reader for reader in graph.consumers(node.output) if reader.name in roots]
            _insert_after(graph, node, readers, "int16", kinds)
    for name in by_default.intersection(graph.outputs):
        _return_in_int8(graph, name, kinds)
    dtypes = {name: _dtype(kind) for name, kind in kinds.items()}
    graph.dtypes = {name: dtype for name, dtype in dtypes.items() if dtype != "int8"}
    graph.drop_unused()
    return graph


def _dtype(kind: _Kind) -> Dtype:
    return kind.dtype if isinstance(kind, Quantization) else kind  # type: ignore[return-value]


def _signature(graph: Graph, node: Node, given: Sequence[Dtype]) -> Signature:
    """The dtypes of a node.

    Args:
        given: those of its inputs now.
    """
    operator, wanted = node.operator, graph.dtypes.get(node.name)
    first = operator.rules[0]
    if wanted is not None:
        order = [wanted]
    elif isinstance(first, SameAs):
        order = [given[first.input], "int8"]
    elif isinstance(first, Shared):
        # The widest that a requantize makes.
        order = [given[0] if len(set(given)) == 1 else "int16", "int8"]
    else:
        order = ["int8"]
    for dtype in order:
        offered = [signature for signature in operator.signatures if signature.output(0) == dtype]
        if offered:
            return max(offered, key=lambda signature: signature.takes(given))
    if wanted is None:
        return operator.signatures[0]
    offers = " or ".join(sorted({signature.output(0) for signature in operator.signatures}))
    error = QuantizationError(f"{operator.name} has no kernel of {wanted}; it makes {offers}")
    raise in_module(error, graph.module_path(node))


def _join(graph: Graph, node: Node, signature: Signature, kinds: dict[str, _Kind]) -> None:
    """Requantizes a node's inputs if they cannot share a quantization of these dtypes."""
    found = {kinds[name] for name in node.inputs}
    if len(found) == 1 and _dtype(kinds[node.inputs[0]]) == signature.input(0):
        return
    for index, name in enumerate(node.inputs):
        if kinds[name] != signature.input(index):
            node.inputs[index] = _requantize(graph, node, name, signature.input(index), kinds)


def _return_in_int8(graph: Graph, output: str, kinds: dict[str, _Kind]) -> None:
    """Requantizes an output of the graph to int8."""
    producer = graph.producer(output)
    assert producer is not None
    name = _insert_after(graph, producer, [], "int8", kinds)
    graph.values[name].layout, graph.values[output].layout = graph.values[output].layout, None
    graph.outputs = [name if other == output else other for other in graph.outputs]


def _insert_after(
    graph: Graph, node: Node, readers: Sequence[Node], dtype: Dtype, kinds: dict[str, _Kind]
) -> str:
    """Inserts a requantize to a dtype after a node, for these readers; returns the name of the result."""
    source = graph.values[node.output]
    value = graph.new_value(f"{source.name}_requantized", source.shape, source)
    graph.nodes.insert(graph.nodes.index(node) + 1, Node(Requantize(), [source.name], [value.name]))
    kinds[value.name] = dtype
    for reader in readers:
        reader.inputs = [value.name if name == source.name else name for name in reader.inputs]
    return value.name


def _requantize(graph: Graph, node: Node, name: str, dtype: Dtype, kinds: dict[str, _Kind]) -> str:
    """Requantizes a value to a dtype before a node; returns the name of the result, or of the value itself if
    there is no such requantize.
    """
    if not any(each.takes([_dtype(kinds[name])]) and each.makes([dtype]) for each in Requantize.signatures):
        return name
    source = graph.values[name]
    value = graph.new_value(f"{name}_requantized", source.shape, source)
    graph.nodes.insert(graph.nodes.index(node), Node(Requantize(), [name], [value.name]))
    kinds[value.name] = dtype
    return value.name
