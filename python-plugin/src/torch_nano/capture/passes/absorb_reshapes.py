"""Flatten and its like vanish into the layers behind them, or cost nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ...arithmetic.layout import Shape, device_shape, to_device
from ...errors import UnsupportedError, UnsupportedNode
from ...ir.graph import Graph, Node
from ...ops.fully_connected import FullyConnected
from ...ops.table import TableOperator
from ..structural import Reshape


def absorb_reshapes(graph: Graph) -> Graph:
    """Merges a flatten into the linear layer behind it, whose columns are permuted when it is quantized.

    A reshape that leaves all bytes where they lie on the device stays in the graph and costs nothing there.

    Raises:
        UnsupportedError: for the others.
    """
    graph = graph.copy()
    _merge_chains(graph)
    _sink(graph)
    _merge_chains(graph)
    for node in list(graph.nodes):
        if isinstance(node.operator, Reshape) and len(node.operator.shape) == 1:
            _absorb(graph, node)
    graph.drop_unused()
    refused = [
        node for node in graph.nodes if isinstance(node.operator, Reshape) and not _is_free(graph, node)
    ]
    if refused:
        raise UnsupportedError([_describe(graph, node) for node in refused])
    return graph


def _merge_chains(graph: Graph) -> None:
    """Collapses consecutive reshapes, and drops those to the shape that is there already."""
    for node in list(graph.nodes):
        if not isinstance(node.operator, Reshape):
            continue
        before = graph.producer(node.inputs[0])
        if before is not None and isinstance(before.operator, Reshape):
            graph.values[node.output].dropouts += graph.values[before.output].dropouts
            node.inputs = list(before.inputs)
        if graph.values[node.inputs[0]].shape == node.operator.shape:
            graph.remove(node)
    graph.drop_unused()


def _sink(graph: Graph) -> None:
    """Moves reshapes behind operators that work element by element, towards the layer that absorbs them."""
    for node in list(graph.nodes):
        if not isinstance(node.operator, Reshape):
            continue
        reader = graph.only_reader(node.output)
        while reader is not None and isinstance(reader.operator, TableOperator):
            source = graph.values[node.inputs[0]]
            middle = graph.values[node.output]
            end = graph.values[reader.output]
            # The two nodes swap places: source -> reader -> middle -> reshape -> end.
            graph.values[middle.name] = replace(
                end, name=middle.name, shape=source.shape, dropouts=middle.dropouts
            )
            reader.inputs, reader.outputs = list(node.inputs), [middle.name]
            node.inputs, node.outputs = [middle.name], [end.name]
            at, behind = graph.nodes.index(node), graph.nodes.index(reader)
            graph.nodes[at], graph.nodes[behind] = reader, node
            reader = graph.only_reader(node.output)


def _absorb(graph: Graph, node: Node) -> None:
    shape = graph.values[node.inputs[0]].shape
    readers = [
        reader for reader in graph.consumers(node.output) if isinstance(reader.operator, FullyConnected)
    ]
    if len(shape) == 1 or not readers:
        return
    graph.hand_back_dropouts(node)
    for reader in readers:
        assert isinstance(reader.operator, FullyConnected)
        reader.operator = replace(reader.operator, flattened=shape)
        reader.inputs = list(node.inputs)


def _is_free(graph: Graph, node: Node) -> bool:
    """Whether the device can read the input's bytes as the output."""
    before, after = graph.values[node.inputs[0]].shape, graph.values[node.output].shape
    if not same_bytes(before, after):
        return False
    any_shape = all(isinstance(reader.operator, FullyConnected) for reader in graph.consumers(node.output))
    return any_shape or device_shape(before) == device_shape(after)


def _describe(graph: Graph, node: Node) -> UnsupportedNode:
    before, after = graph.values[node.inputs[0]].shape, graph.values[node.output]
    problem = "its numbers would have to move in memory"
    if same_bytes(before, after.shape):
        problem = "the layer behind it needs another height and width than the one before it makes"
    return UnsupportedNode(
        after.module_path,
        after.source,
        "reshape",
        f"from {before} to {after.shape} per sample: {problem}",
        "flatten in front of a Linear only, or after a global pool",
    )


def same_bytes(first: Shape, second: Shape) -> bool:
    """Whether a tensor reshaped from one torch shape to another lies in the device's memory as before.

    >>> same_bytes((16, 1, 1), (16,)), same_bytes((1, 28, 28), (784,)), same_bytes((16, 2, 2), (64,))
    (True, True, False)
    """
    order = torch.arange(math.prod(first))
    return torch.equal(to_device(order.reshape(1, *first)), to_device(order.reshape(1, *second)))
