"""Dtypes of layers by module, as the argument `precision` of `to_nano` and `prepare_qat` has them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Set
from typing import Literal

from .graph import Graph, Node
from .rules import Own, SameAs, Shared

#: The dtypes in which a layer can be asked to compute.
LayerDtype = Literal["int8", "int16"]
#: By the name of a module, or a pattern of names: the dtype of the inputs and outputs of all its layers. Of
#: entries that match a layer the last one counts.
Precision = Mapping[str, LayerDtype]


def computing_nodes(graph: Graph) -> list[Node]:
    """The nodes whose dtype can be chosen: all but those that move data, which take their input's, and those
    that make indices.
    """
    return [
        node
        for node in graph.nodes
        if node.operator.name != "requantize"
        and not type(node.operator).moves_data()
        and not _makes_indices(node)
    ]


def _makes_indices(node: Node) -> bool:
    return all(each.output(0) == "int32" for each in node.operator.signatures)


def offers(node: Node, dtype: LayerDtype) -> bool:
    """Whether nano-core has a kernel for a node with this output, and with these inputs or indices."""
    return any(
        each.output(0) == dtype
        and all(each.input(index) in (dtype, "int32") for index in range(len(node.inputs)))
        for each in node.operator.signatures
    )


def modules_without(graph: Graph, dtype: LayerDtype) -> dict[str, str]:
    """The modules with a layer that cannot compute in a dtype, by path, and the operator of the first one."""
    found: dict[str, str] = {}
    for node in computing_nodes(graph):
        if not offers(node, dtype):
            found.setdefault(graph.module_path(node), node.operator.name)
    return found


def around(graph: Graph, value: str) -> list[Node]:
    """The nodes that must have a dtype to keep a value in it: those that make and read it, also after others
    that take the quantization of their input. [] for values whose quantization is that of others, and those
    of which indices are made, as by an argmax.
    """
    producer, readers = graph.producer(value), _readers(graph, value)
    if any(map(_makes_indices, readers)):
        return []
    if producer is None or producer.operator.name == "requantize":
        return readers
    is_own = Own() in producer.operator.rules and not _follows(producer)
    return [producer, *readers] if is_own else []


def _readers(graph: Graph, value: str) -> list[Node]:
    found = []
    for node in graph.consumers(value):
        found += _readers(graph, node.name) if _follows(node) else [node]
    return found


def _follows(node: Node) -> bool:
    """Whether a node takes the dtype of its input, or only changes it."""
    return isinstance(node.operator.rules[0], SameAs | Shared) or node.operator.name == "requantize"


def precision_of(graph: Graph, wide: Set[str] = frozenset()) -> dict[str, LayerDtype]:
    """The precision of the layers of a quantized graph.

    Args:
        wide: the names of the nodes that compute in int16 unless a precision says otherwise.
    """

    def decides(node: Node) -> bool:
        producer = graph.producer(node.inputs[0])
        return not _follows(node) or (producer is not None and producer.operator.name == "requantize")

    def dtype(node: Node) -> str:
        return graph.quantization(node.name).dtype

    def is_by_default(node: Node) -> bool:
        """Whether it would compute in int16 anyway, and is requantized for all others."""
        narrows = all(
            reader.name in wide or reader.operator.name == "requantize"
            for reader in graph.consumers(node.name)
        )
        is_wide = node.name in wide and dtype(node) == "int16"
        return is_wide and narrows and node.name not in graph.outputs

    # Where a module has layers of both kinds, those that do not follow say what was wanted.
    nodes = sorted(filter(decides, computing_nodes(graph)), key=_follows, reverse=True)
    dtypes = {graph.module_path(node): dtype(node) for node in nodes if not is_by_default(node)}
    narrowed = {graph.module_path(node) for node in nodes if node.name in wide and dtype(node) == "int8"}
    return as_precision(dtypes, narrowed)


def as_precision(dtypes: Mapping[str, str], kept: Container[str] = ()) -> dict[str, LayerDtype]:
    """The precision of layers, with no entry for a module of the dtype of the one around it.

    Args:
        dtypes: those of all layers, by the path of the module.
        kept: paths of modules that get an entry anyway.

    >>> as_precision({"stem": "int16", "stem.act": "int8", "last": "int8"})
    {'stem': 'int16', 'stem.act': 'int8'}
    """
    found: dict[str, LayerDtype] = {}
    for path in sorted(dtypes, key=lambda path: (len(path.split(".")) if path else 0, path)):
        outer = next((found[other] for other in _containers(path) if other in found), "int8")
        if dtypes[path] != outer or path in kept:
            found[path] = "int8" if dtypes[path] == "int8" else "int16"
    return found


def _containers(path: str) -> Iterator[str]:
    """The paths of the modules around a module, from the inside out."""
    while path:
        path = path.rpartition(".")[0]
        yield path
