"""Gives each value its dtype, and inserts a requantize where a reader takes another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...arithmetic.quantization import INDICES, Dtype, Quantization
from ...errors import QuantizationError, in_module
from ...ir.graph import Graph, Node
from ...ir.rules import Fixed, Own, SameAs, Shared, Signature
from ...ops.requantize import Requantize

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
    return {name: _dtype(quantized.quantization(name)) for name in quantized.values}


def insert_requantize(graph: Graph) -> Graph:
    """Inserts a requantize of inputs of a dtype that their reader does not take, and before operators whose
    inputs and output share one quantization (concatenation).

    A node takes and makes the dtype that :attr:`Graph.dtypes` wants under its name. Without one, operators
    whose output has the quantization of an input follow that input if they can, and others compute in int8.
    Readers that need a value in the same dtype share one requantize. Of inputs that must share a
    quantization, each with a fixed one (softmax) is requantized by itself, and each of another dtype.

    Raises:
        QuantizationError: an operator has no kernel of the dtype that is wanted; it names the module.
    """
    graph = graph.copy()
    kinds: dict[str, _Kind] = {
        name: INDICES if graph.values[name].index_limit is not None else graph.dtypes.get(name, "int8")
        for name in graph.inputs
    }
    made: dict[tuple[str, Dtype], str] = {}
    for node in list(graph.nodes):
        signature = _signature(graph, node, [_dtype(kinds[name]) for name in node.inputs])
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
