"""Fuses an activation's clamp into the layer before it."""

from __future__ import annotations

from ...ir.graph import Graph
from ...ops._clamp import ClampedOperator
from ...ops.activation import Activation
from ...ops.max_pool2d import MaxPool2d


def fuse_activations(graph: Graph) -> Graph:
    """Fuses ReLU, ReLU6 and other clamps into the layer before, if it can clamp and has no other reader.

    A clamp gives the same before a max pool as after it, so it may be fused into the layer before the pool.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if not isinstance(node.operator, Activation):
            continue
        reader = node
        before = graph.producer(node.inputs[0])
        while (
            before is not None
            and isinstance(before.operator, MaxPool2d)
            and graph.only_reader(before.output) is reader
            and not graph.values[before.output].dropouts
        ):
            reader = before
            before = graph.producer(reader.inputs[0])
        if (
            before is None
            or not isinstance(before.operator, ClampedOperator)
            or graph.only_reader(before.output) is not reader
            or (reader is not node and graph.values[before.output].dropouts)
        ):
            continue
        before.operator = before.operator.with_clamp(node.operator.low, node.operator.high)
        graph.remove(node)
    return graph
