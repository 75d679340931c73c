"""Batch normalization that could not be folded becomes a depthwise convolution of one element."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...ir.graph import Graph, Node
from ...ir.value import Value
from ...ops.depthwise_conv2d import DepthwiseConv2d
from ..structural import BatchNorm, Reshape
from .fold_batch_norm import ScaleAndShift, folded_norm


def lower_batch_norm(graph: Graph) -> Graph:
    """Replaces every batch normalization by the depthwise convolution that does the same; a vector counts as
    an image of one pixel.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, BatchNorm):
            _lower(graph, node)
    graph.drop_unused()
    return graph


def _lower(graph: Graph, node: Node) -> None:
    assert isinstance(node.operator, BatchNorm)
    value = graph.values[node.output]
    sides = [1] * max(len(value.shape) - 1, 1)
    prefix = f"{value.module_path or node.output}."
    scale_and_shift, norm = node.operator.scale_and_shift, folded_norm(graph, node)
    weight = partial(_scale, scale_and_shift, (-1, 1, *sides))
    bias = partial(_shift, scale_and_shift)
    weight_name = graph.derive(f"{prefix}folded_weight", weight, node.parameters, norm)
    bias_name = graph.derive(f"{prefix}folded_bias", bias, node.parameters, norm)
    node.operator = DepthwiseConv2d(kernel=(1, 1))
    node.parameters = {"weight": weight_name, "bias": bias_name}
    if len(value.shape) == 1:
        _as_image(graph, node, value)


def _scale(scale_and_shift: ScaleAndShift, shape: tuple[int, ...], **batch_norm: Tensor) -> Tensor:
    return scale_and_shift(batch_norm)[0].float().reshape(shape)


def _shift(scale_and_shift: ScaleAndShift, **batch_norm: Tensor) -> Tensor:
    return scale_and_shift(batch_norm)[1].float()


def _as_image(graph: Graph, node: Node, value: Value) -> None:
    """Puts reshapes around a node: to an image of length one, and back."""
    (channels,) = value.shape
    source = graph.values[node.inputs[0]]
    before = graph.new_value(f"{value.name}_input", (channels, 1), source)
    image = graph.new_value(f"{value.name}_image", (channels, 1), value)
    to_image = Node(Reshape((channels, 1)), [source.name], [before.name])
    back = Node(Reshape((channels,)), [image.name], [value.name])
    node.inputs, node.outputs = [before.name], [image.name]
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = [to_image, node, back]
