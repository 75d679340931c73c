"""Folds batch norms and arithmetic with constants into the layer after them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...arithmetic.layout import Shape
from ...ir.affine import AffineOperator
from ...ir.graph import Graph, Node
from ...ops._channels import ChannelsOperator
from ...ops.conv2d import Conv2d
from ...ops.depthwise_conv2d import DepthwiseConv2d
from ...ops.fully_connected import FullyConnected
from ..structural import BatchNorm
from .fold_affines import ScaleAndShift, folded_norm

#: dB (SQNR) that int8 weights must keep. A fold multiplies the columns of a row, which has one scale.
_LEAST_SQNR = 30.0


def fold_into_next(graph: Graph) -> Graph:
    """Multiplies the weights that read each input channel by the affine's factor and adds what its shift
    makes of them to the bias, in float64.

    An affine stays where that is not exact (the layer after it pads with zeros, or a dropout is between),
    where others read its result, and where the factors of a batch norm differ so much that weights of one
    scale would lose accuracy.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.operator, AffineOperator) and (layer := _layer_after(graph, node)) is not None:
            _fold(graph, node, layer)
    graph.drop_unused()
    return graph


def _layer_after(graph: Graph, node: Node) -> Node | None:
    """The layer that an affine can be folded into."""
    layer = graph.only_reader(node.output)
    if layer is None or graph.values[node.output].dropouts:
        return None
    operator, weight = layer.operator, layer.parameters.get("weight", "")
    pads = isinstance(operator, Conv2d | DepthwiseConv2d) and any(operator.padding)
    if pads or not isinstance(operator, Conv2d | DepthwiseConv2d | FullyConnected):
        return None
    if not isinstance(node.operator, BatchNorm):
        return layer
    # In training a layer follows the statistics of one batch norm only.
    derived = graph.derived.get(weight)
    has_norm = derived is not None and derived.norm is not None
    return layer if not has_norm and _keeps_accuracy(graph, node, layer) else None


def _keeps_accuracy(graph: Graph, norm: Node, layer: Node) -> bool:
    """Whether int8 weights of one scale for each row are exact enough after the fold, for inputs with the
    running statistics.
    """
    assert isinstance(norm.operator, BatchNorm) and isinstance(layer.operator, ChannelsOperator)
    given = {role: graph.parameters[name] for role, name in norm.parameters.items()}
    shape = graph.values[norm.output].shape
    scale, _ = norm.operator.scale_and_shift(given)
    weight = graph.parameters[layer.parameters["weight"]].double()
    variance = given["running_var"].double()
    squares = variance + given["running_mean"].double().square()
    folded = _by_input(layer.operator, weight, scale, shape)
    step = folded.flatten(1).abs().amax(1) / 127
    noise = (torch.ones_like(folded) * step.reshape(-1, *[1] * (folded.dim() - 1))).square() / 12
    signal = _by_input(layer.operator, folded.square(), variance, shape).sum()
    error = _by_input(layer.operator, noise, squares, shape).sum()
    return bool(signal >= error * 10 ** (_LEAST_SQNR / 10))


def _fold(graph: Graph, node: Node, layer: Node) -> None:
    assert isinstance(node.operator, AffineOperator) and isinstance(layer.operator, ChannelsOperator)
    weight, shape = layer.parameters["weight"], graph.values[node.output].shape
    prefix = weight.removesuffix("weight").removesuffix("folded_")
    bias = {"next_bias": layer.parameters["bias"]} if "bias" in layer.parameters else {}
    arguments = layer.operator, node.operator.scale_and_shift, shape
    sources = {"next_weight": weight, **node.parameters}
    norm = folded_norm(graph, node)
    layer.parameters = {
        "weight": graph.derive(f"{prefix}folded_weight", partial(_folded_weight, *arguments), sources, norm),
        "bias": graph.derive(
            f"{prefix}folded_bias", partial(_folded_bias, *arguments), {**sources, **bias}, norm
        ),
    }
    graph.remove(node)


def _folded_weight(
    operator: ChannelsOperator,
    scale_and_shift: ScaleAndShift,
    shape: Shape,
    next_weight: Tensor,
    **affine: Tensor,
) -> Tensor:
    scale, _ = scale_and_shift(affine)
    return _by_input(operator, next_weight.double(), scale, shape).float()


def _folded_bias(
    operator: ChannelsOperator,
    scale_and_shift: ScaleAndShift,
    shape: Shape,
    next_weight: Tensor,
    next_bias: Tensor | None = None,
    **affine: Tensor,
) -> Tensor:
    _, shift = scale_and_shift(affine)
    added = _by_input(operator, next_weight.double(), shift, shape).flatten(1).sum(1)
    return (added if next_bias is None else added + next_bias.double()).float()


def _by_input(operator: ChannelsOperator, weight: Tensor, numbers: Tensor, shape: Shape) -> Tensor:
    """The weight [out, ...] times, for each input channel that it reads, the channel's number.

    Args:
        numbers: [channels], or [] or [1] for all channels.
        shape: of the layer's input.
    """
    channels = numbers.expand(shape[0])
    if isinstance(operator, FullyConnected):
        each = channels.reshape(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)
        return weight * operator.columns(each)
    if isinstance(operator, DepthwiseConv2d):
        return weight * channels.reshape(-1, *[1] * (weight.dim() - 1))
    assert isinstance(operator, Conv2d)
    # Those of its group, for each output.
    groups = channels.reshape(operator.groups, -1).repeat_interleave(len(weight) // operator.groups, 0)
    return weight * groups.reshape(*groups.shape, *[1] * (weight.dim() - 2))
