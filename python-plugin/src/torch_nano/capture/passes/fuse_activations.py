"""Fuses an activation's clamp into the layer before it."""

from __future__ import annotations

from ...ir.graph import Graph
from ...ops._clamp import ClampedOperator
from ...ops.activation import Activation


def fuse_activations(graph: Graph) -> Graph:
    """Fuses ReLU, ReLU6 and other clamps into the layer before, if it can clamp and has no other reader."""
    graph = graph.copy()
    for node in list(graph.nodes):
        if not isinstance(node.operator, Activation):
            continue
        before = graph.producer(node.inputs[0])
        if (
            before is None
            or not isinstance(before.operator, ClampedOperator)
            or graph.only_reader(before.output) is not node
        ):
            continue
        before.operator = before.operator.with_clamp(node.operator.low, node.operator.high)
        graph.remove(node)
    return graph
