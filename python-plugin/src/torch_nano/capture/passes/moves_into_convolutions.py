"""Padding before convolutions and cropping after them become the convolutions' own padding."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from ...ir.graph import Graph, Node
from ...ops._convolution import ConvolutionOperator
from ...ops._window import Axes, Padding
from ...ops.move import Move


def moves_into_convolutions(graph: Graph) -> Graph:
    """Adds zeros around a value to the padding of the convolutions that read it, and takes what is cut off a
    convolution's output from its padding, so that it is not computed.

    Other moves stay.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, Move):
            _into_padding(graph, node, node.operator)
            _out_of_convolution(graph, node, node.operator)
    graph.drop_unused()
    return graph


def _into_padding(graph: Graph, node: Node, move: Move) -> None:
    """Adds zeros around a value to the padding of the convolutions that read it."""
    source, output = graph.values[node.inputs[0]], graph.values[node.output]
    numbers, given = move.numbers(source.shape), torch.arange(prod(source.shape))
    padding = _margins(numbers, given, source.shape)
    if padding is None or output.dropouts or int((numbers >= 0).sum()) > len(given):
        return
    for reader in graph.consumers(node.output):
        if isinstance(reader.operator, ConvolutionOperator):
            reader.operator = replace(reader.operator, padding=_sum(reader.operator.padding, padding))
            reader.inputs = [source.name]


def _out_of_convolution(graph: Graph, node: Node, move: Move) -> None:
    """Shortens the padding of a convolution by what is cut off its output, so that it is not computed."""
    source, output = graph.values[node.inputs[0]], graph.values[node.output]
    layer = graph.producer(source.name)
    if (
        layer is None
        or not isinstance(layer.operator, ConvolutionOperator)
        or graph.only_reader(source.name) is not node
        or source.dropouts
        # A batch norm's statistics in training are those of the whole output.
        or not graph.derived.keys().isdisjoint(layer.parameters.values())
    ):
        return
    numbers = move.numbers(source.shape)
    whole = torch.arange(prod(source.shape)).reshape(source.shape)
    cut = _margins(whole, numbers.flatten(), tuple(numbers.shape))
    if cut is None:
        return
    window, input_ = layer.operator, Axes.of(graph.values[layer.inputs[0]].shape)
    made = Axes.of(output.shape)
    padding: list[int] = []
    for axis in range(2):
        before = window.padding[2 * axis] - cut[2 * axis] * window.stride[axis]
        reach = (made[axis] - 1) * window.stride[axis] + window.dilation[axis] * (window.kernel[axis] - 1) + 1
        padding += [before, reach - input_[axis] - before]
    if min(padding) < 0:
        return
    layer.operator = replace(window, padding=(padding[0], padding[1], padding[2], padding[3]))
    source.shape = output.shape
    graph.remove(node)


def _margins(outer: Tensor, inner: Tensor, shape: tuple[int, ...]) -> Padding | None:
    """How far a box of numbers lies inside of others: top, bottom, left, right. None if it does not, or fills
    them.

    Args:
        inner: the numbers in the box, flat.
        shape: of the box.

    >>> _margins(torch.tensor([[-1, 0, 1, -1, -1]]), torch.tensor([0, 1]), (1, 2))
    (0, 0, 1, 2)
    """
    if outer.dim() != len(shape) or outer.dim() < 2 or outer.shape[0] != shape[0] or not inner.numel():
        return None
    at = (outer == inner[0]).nonzero()
    if len(at) != 1 or int(at[0, 0]) != 0:
        return None
    starts = at[0].tolist()
    box = tuple(slice(start, start + side) for start, side in zip(starts, shape, strict=True))
    if tuple(outer[box].shape) != shape or not torch.equal(outer[box].flatten(), inner):
        return None
    margins = [0, 0] * (3 - outer.dim())
    for start, side, whole in zip(starts[1:], shape[1:], outer.shape[1:], strict=True):
        margins += [start, whole - start - side]
    return (margins[0], margins[1], margins[2], margins[3]) if any(margins) else None


def _sum(first: Padding, second: Padding) -> Padding:
    top, bottom, left, right = (a + b for a, b in zip(first, second, strict=True))
    return top, bottom, left, right
