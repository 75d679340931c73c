"""Folds padding before convolutions and cropping after them into the convolutions' own padding."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from ...ir.graph import Graph, Node
from ...ops._window import Axes, Padding
from ...ops.conv2d import Conv2d
from ...ops.depthwise_conv2d import DepthwiseConv2d
from ...ops.move import Move

#: Not transposed ones, whose padding is cut off their output.
_PADDED = (Conv2d, DepthwiseConv2d)


def moves_into_convolutions(graph: Graph) -> Graph:
    """Folds padding with zeros into the convolutions that read it, and cropping into the one before it.

    A cropped convolution gets less padding, so the cropped part is not computed. Other moves stay.
    """
    graph = graph.copy()
    for node in [node for node in graph.nodes if isinstance(node.operator, Move)]:
        _into_padding(graph, node)
        _out_of_convolution(graph, node)
    graph.drop_unused()
    return graph


def _into_padding(graph: Graph, node: Node) -> None:
    """Adds the zeros around a value to the padding of the convolutions that read it."""
    source, output = graph.values[node.inputs[0]], graph.values[node.output]
    assert isinstance(node.operator, Move)
    numbers = node.operator.numbers(source.shape)
    inside = (numbers >= 0).nonzero()
    if len(output.shape) < 2 or output.dropouts or not len(inside):
        return
    starts, ends = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    margins = [0, 0] * (3 - len(output.shape))
    steps = list(node.operator.steps)
    for dim in range(1, len(output.shape)):
        start, end, side = starts[dim], ends[dim], output.shape[dim]
        margins += [start, side - end]
        steps += [f"slice.Tensor(dim={dim + 1}, start={start}, end={end})"] if end - start < side else []
    readers = graph.consumers(output.name)
    convolutions = [reader for reader in readers if isinstance(reader.operator, _PADDED)]
    without = Move(tuple(steps))
    is_padding = without.is_reshape(source.shape) and without.numbers(source.shape).shape == source.shape
    alone = len(convolutions) == len(readers) and output.name not in graph.outputs
    if not any(margins) or not (is_padding or alone):
        return
    for reader in convolutions:
        assert isinstance(reader.operator, _PADDED)
        top, bottom, left, right = (
            pad + margin for pad, margin in zip(reader.operator.padding, margins, strict=True)
        )
        reader.operator = replace(reader.operator, padding=(top, bottom, left, right))
        reader.inputs = [source.name if is_padding else output.name]
    if not is_padding:
        node.operator, output.shape = without, tuple(without.numbers(source.shape).shape)


def _out_of_convolution(graph: Graph, node: Node) -> None:
    """Reduces the padding of a convolution by the cropped part of its output, which is then not computed."""
    if not graph.consumers(node.output) and node.output not in graph.outputs:
        return
    source, output = graph.values[node.inputs[0]], graph.values[node.output]
    layer = graph.producer(source.name)
    if (
        layer is None
        or not isinstance(layer.operator, _PADDED)
        or graph.only_reader(source.name) is not node
        or source.dropouts
        # With a folded batch norm, the statistics in training are those of the whole output.
        or any(graph.derived[name].norm for name in layer.parameters.values() if name in graph.derived)
    ):
        return
    assert isinstance(node.operator, Move)
    numbers = node.operator.numbers(source.shape)
    whole = torch.arange(prod(source.shape)).reshape(source.shape)
    cut = _margins(whole, numbers)
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


def _margins(outer: Tensor, inner: Tensor) -> Padding | None:
    """The margins of a spatial crop: top, bottom, left, right; None if `inner` is not a crop of `outer`.

    Both are element indices with all channels. `inner` must be smaller than `outer`.

    >>> _margins(torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[6, 7]]))
    (0, 0, 1, 2)
    """
    if outer.dim() != inner.dim() or outer.dim() < 2 or outer.shape == inner.shape:
        return None
    at = (outer == inner.flatten()[0]).nonzero()
    if len(at) != 1:
        return None
    starts = at[0].tolist()
    box = tuple(slice(start, start + side) for start, side in zip(starts, inner.shape, strict=True))
    if outer.shape[0] != inner.shape[0] or not torch.equal(outer[box], inner):
        return None
    margins = [0, 0] * (3 - outer.dim())
    for start, side, whole in zip(starts[1:], inner.shape[1:], outer.shape[1:], strict=True):
        margins += [start, whole - start - side]
    return margins[0], margins[1], margins[2], margins[3]
