"""Lowers the remaining batch norms and arithmetic with constants to depthwise convolutions and tables."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...ir.affine import AffineOperator
from ...ir.graph import Graph, Node
from ...ir.value import Value
from ...ops.depthwise_conv2d import DepthwiseConv2d
from ...ops.move import Move
from ...ops.table import Table
from ..channel_affine import ChannelAffine
from .fold_affines import ScaleAndShift, fold_into_layer, folded_norm


def lower_affines(graph: Graph) -> Graph:
    """Replaces every affine operator by an equivalent 1x1 depthwise convolution, or by a table if it is
    arithmetic with one number.

    A vector is reshaped to one pixel. Of consecutive affines the first is lowered, and the others are folded
    into it.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, AffineOperator) and fold_into_layer(graph, node):
            continue
        function = node.operator.as_function() if isinstance(node.operator, ChannelAffine) else None
        if function is not None:
            node.operator = Table(*function)
        elif isinstance(node.operator, AffineOperator):
            _lower(graph, node)
    graph.drop_unused()
    return graph


def _lower(graph: Graph, node: Node) -> None:
    assert isinstance(node.operator, AffineOperator)
    value = graph.values[node.output]
    channels, sides = value.shape[0], [1] * max(len(value.shape) - 1, 1)
    prefix = f"{value.module_path or node.output}."
    scale_and_shift = node.operator.scale_and_shift
    norm = folded_norm(graph, node)
    weight = partial(_scale, scale_and_shift, channels, (-1, 1, *sides))
    bias = partial(_shift, scale_and_shift, channels)
    weight_name = graph.derive(f"{prefix}folded_weight", weight, node.parameters, norm)
    bias_name = graph.derive(f"{prefix}folded_bias", bias, node.parameters, norm)
    node.operator = DepthwiseConv2d(kernel=(1, 1))
    node.parameters = {"weight": weight_name, "bias": bias_name}
    if len(value.shape) == 1:
        _as_image(graph, node, value)


def _scale(
    scale_and_shift: ScaleAndShift, channels: int, shape: tuple[int, ...], **parameters: Tensor
) -> Tensor:
    return scale_and_shift(parameters)[0].float().expand(channels).reshape(shape).contiguous()


def _shift(scale_and_shift: ScaleAndShift, channels: int, **parameters: Tensor) -> Tensor:
    return scale_and_shift(parameters)[1].float().expand(channels).contiguous()


def _as_image(graph: Graph, node: Node, value: Value) -> None:
    """Inserts reshapes around a node: from a vector to one pixel, and back."""
    (channels,) = value.shape
    source = graph.values[node.inputs[0]]
    before = graph.new_value(f"{value.name}_input", (channels, 1), source)
    image = graph.new_value(f"{value.name}_image", (channels, 1), value)
    to_image = Node(Move.reshape((channels, 1)), [source.name], [before.name])
    back = Node(Move.reshape((channels,)), [image.name], [value.name])
    node.inputs, node.outputs = [before.name], [image.name]
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = [to_image, node, back]
