"""Batch normalization behind a convolution or linear layer becomes part of its weights."""

from __future__ import annotations

from torch import Tensor

from ...ops._channels import ChannelsOperator
from ...ops.operator import Node
from ..graph import Graph
from ..structural import BatchNorm


def fold_batch_norm(graph: Graph) -> Graph:
    """Multiplies each output channel's weights by the normalization's scale and adds its shift to the bias,
    in float64.

    What stands behind no such layer, or behind one that others read too, stays.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if not isinstance(node.operator, BatchNorm):
            continue
        layer = graph.producer(node.inputs[0])
        if (
            layer is None
            or not isinstance(layer.operator, ChannelsOperator)
            or graph.only_reader(layer.output) is not node
        ):
            continue
        if layer.operator == layer.operator.without_clamp():
            _fold(graph, node, layer)
    graph.drop_unused()
    return graph


def _fold(graph: Graph, node: Node, layer: Node) -> None:
    assert isinstance(node.operator, BatchNorm)
    scale, shift = node.operator.scale_and_shift(
        {role: graph.parameters[name] for role, name in node.parameters.items()}
    )
    weight_name = layer.parameters["weight"]
    weight = graph.parameters[weight_name].double()
    if "bias" in layer.parameters:
        bias_name = layer.parameters["bias"]
        shift = shift + graph.parameters[bias_name].double() * scale
    else:
        bias_name = f"{weight_name.removesuffix('weight')}bias"
    weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    layer.parameters = {
        "weight": _store(graph, layer, weight_name, weight.float()),
        "bias": _store(graph, layer, bias_name, shift.float()),
    }
    graph.remove(node)


def _store(graph: Graph, layer: Node, name: str, tensor: Tensor) -> str:
    """Stores a parameter of one layer under its name, or a new one where another layer uses that too."""
    if any(name in other.parameters.values() for other in graph.nodes if other is not layer):
        name = f"{name}.{layer.output}"
    graph.parameters[name] = tensor
    return name
