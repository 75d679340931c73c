"""Folds a batch norm after a convolution or linear layer into the layer's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from ...ir.graph import FoldedNorm, Graph, Node
from ...ops._channels import ChannelsOperator
from ..structural import BatchNorm

ScaleAndShift = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]


def fold_batch_norm(graph: Graph) -> Graph:
    """Multiplies each output channel's weights by the normalization's scale and adds its shift to the bias,
    in float64.

    A batch norm stays if it does not follow such a layer, if the layer has a clamp, or if other nodes also
    read the layer's output.
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
    assert isinstance(node.operator, BatchNorm) and isinstance(layer.operator, ChannelsOperator)
    weight = layer.parameters["weight"]
    prefix = weight.removesuffix("weight")
    bias = {"layer_bias": layer.parameters["bias"]} if "bias" in layer.parameters else {}
    scale_and_shift, norm = node.operator.scale_and_shift, folded_norm(graph, node)
    layer.parameters = {
        "weight": graph.derive(
            f"{prefix}folded_weight",
            partial(_folded_weight, layer.operator, scale_and_shift),
            {"layer_weight": weight, **node.parameters},
            norm,
        ),
        "bias": graph.derive(
            f"{prefix}folded_bias", partial(_folded_bias, scale_and_shift), {**bias, **node.parameters}, norm
        ),
    }
    graph.remove(node)


def folded_norm(graph: Graph, node: Node) -> FoldedNorm:
    """The properties of a batch norm that training needs after folding."""
    assert isinstance(node.operator, BatchNorm)
    operator = node.operator
    return FoldedNorm(graph.values[node.output].module_path, operator.momentum, operator.follows)


def _folded_weight(
    operator: ChannelsOperator, scale_and_shift: ScaleAndShift, layer_weight: Tensor, **batch_norm: Tensor
) -> Tensor:
    scale, _ = scale_and_shift(batch_norm)
    return operator.scale_outputs(layer_weight.double(), scale).float()


def _folded_bias(
    scale_and_shift: ScaleAndShift, layer_bias: Tensor | None = None, **batch_norm: Tensor
) -> Tensor:
    scale, shift = scale_and_shift(batch_norm)
    return (shift if layer_bias is None else shift + layer_bias.double() * scale).float()
