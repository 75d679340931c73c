"""Batch normalization that could not be folded becomes a depthwise convolution of one element."""

from __future__ import annotations

from ...ops.depthwise_conv2d import DepthwiseConv2d
from ...ops.operator import Node, Value
from ..graph import Graph
from ..structural import BatchNorm, Reshape


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
    scale, shift = node.operator.scale_and_shift(
        {role: graph.parameters[name] for role, name in node.parameters.items()}
    )
    value = graph.values[node.output]
    sides = [1] * max(len(value.shape) - 1, 1)
    prefix = f"{value.module_path or node.output}."
    graph.parameters[f"{prefix}folded_weight"] = scale.float().reshape(-1, 1, *sides)
    graph.parameters[f"{prefix}folded_bias"] = shift.float()
    node.operator = DepthwiseConv2d(kernel=(1, 1))
    node.parameters = {"weight": f"{prefix}folded_weight", "bias": f"{prefix}folded_bias"}
    if len(value.shape) == 1:
        _as_image(graph, node, value)


def _as_image(graph: Graph, node: Node, value: Value) -> None:
    """Puts reshapes around a node: to an image of length one, and back."""
    (channels,) = value.shape
    source = graph.values[node.inputs[0]]
    before = Value(f"{value.name}_input", (channels, 1), module_path=source.module_path, source=source.source)
    image = Value(f"{value.name}_image", (channels, 1), module_path=value.module_path, source=value.source)
    to_image = Node(Reshape((channels, 1)), [source.name], before.name)
    back = Node(Reshape((channels,)), [image.name], value.name)
    node.inputs, node.output = [before.name], image.name
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = [to_image, node, back]
    graph.values |= {before.name: before, image.name: image}
