"""Lets an argmax read the scores that a softmax before it normalizes."""

from __future__ import annotations

from ...ir.graph import Graph
from ...ops.argmax import Argmax
from ...ops.log_softmax import LogSoftmax
from ...ops.softmax import Softmax


def argmax_of_scores(graph: Graph) -> Graph:
    """Lets each argmax of a softmax, or of its logarithm, read that one's input, whose largest channel is the
    same.

    In int8, whose largest probability is 255/256, the two largest channels of a softmax are more often equal
    than their scores are.
    """
    graph = graph.copy()
    for node in graph.nodes:
        before = graph.producer(node.inputs[0])
        if isinstance(node.operator, Argmax) and before and isinstance(before.operator, Softmax | LogSoftmax):
            node.inputs = list(before.inputs)
    graph.drop_unused()
    return graph
