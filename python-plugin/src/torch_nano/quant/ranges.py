"""From a range of real numbers to a scale and a zero point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..ir.graph import Graph, Node
from ..ir.quantization import Quantization

#: Below this scale float32 loses precision; a value whose numbers are all smaller is zero for every purpose.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_LOWEST, _HIGHEST = -128, 127


def quantization(low: float, high: float) -> Quantization:
    """The int8 quantization that covers [low, high] and zero, which it holds exactly.

    The scale is a float32. A range of nothing but zero has scale 1.

    >>> quantization(0.0, 25.5)
    Quantization(scale=0.10000000149011612, zero_point=-128)
    >>> quantization(3.0, 12.75).range[0]
    0.0
    >>> quantization(0.0, 0.0)
    Quantization(scale=1.0, zero_point=0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / (_HIGHEST - _LOWEST)))
    if scale < _SMALLEST_SCALE:
        return Quantization(1.0, 0)
    zero_point = math.floor(_LOWEST - low / scale + 0.5)
    return Quantization(scale, min(max(zero_point, _LOWEST), _HIGHEST))


def assign_quantization(graph: Graph, choose: Callable[[str], Quantization]) -> Graph:
    """The graph with a quantization on every value; `choose` says it for those that :func:`has_range`
    names.
    """
    graph = graph.copy()
    for name in graph.inputs:
        graph.values[name].quantization = choose(name)
    for node in graph.nodes:
        inputs = [graph.quantization(name) for name in node.inputs]
        for name, chosen in zip(node.outputs, output_quantizations(node, inputs, choose), strict=True):
            graph.values[name].quantization = chosen
    return graph


def output_quantizations(
    node: Node, inputs: Sequence[Quantization], choose: Callable[[str], Quantization]
) -> list[Quantization]:
    """The quantizations of a node's outputs.

    An operator that keeps its input's scale and zero point (a pool, a reshape) shares them, one whose output
    is fixed (softmax) has that, and all others have what `choose` says for the output's name.
    """
    if node.operator.fixed_quantization is not None:
        return [node.operator.fixed_quantization] * len(node.outputs)
    if node.operator.keeps_quantization:
        return [inputs[0]] * len(node.outputs)
    return [choose(name) for name in node.outputs]


def has_range(node: Node) -> bool:
    """Whether a node's outputs have ranges of their own."""
    return node.operator.fixed_quantization is None and not node.operator.keeps_quantization


def values_with_range(graph: Graph) -> list[str]:
    """The values with ranges of their own, the graph's inputs first."""
    return [*graph.inputs, *(name for node in graph.nodes if has_range(node) for name in node.outputs)]
