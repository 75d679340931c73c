"""Folds batch norms and arithmetic with constants into the layer before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ...ir.affine import AffineOperator
from ...ir.graph import FoldedNorm, Graph, Node
from ...ops._channels import ChannelsOperator
from ...ops.layer_norm import LayerNorm
from ...ops.move import Move
from ..structural import BatchNorm

ScaleAndShift = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]


def fold_affines(graph: Graph) -> Graph:
    """Multiplies each output channel's weights by the affine's factor and adds its shift to the bias, in
    float64.

    Arithmetic with constants after a batch norm becomes the batch norm's own weight and bias first, and so it
    does after a layer norm. An affine stays if it does not follow such a layer, if the layer has a clamp, or
    if other nodes also read the layer's output.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if not isinstance(node.operator, AffineOperator):
            continue
        before = graph.producer(node.inputs[0])
        if (
            before is not None
            and graph.only_reader(before.output) is node
            and isinstance(before.operator, BatchNorm)
            and not isinstance(node.operator, BatchNorm)
        ):
            _fold_into_norm(graph, node, before)
        else:
            fold_into_layer(graph, node)
    graph.drop_unused()
    return graph


def fold_into_layer(graph: Graph, node: Node) -> bool:
    """Folds an affine into the layer before it; returns False if it must stay.

    Between them may be moves, if the affine is the same for all elements.
    """
    reader, layer = node, graph.producer(node.inputs[0])
    while layer is not None and graph.only_reader(layer.output) is reader:
        if not (node.operator.elementwise and _moves_only(graph, layer)):
            break
        reader, layer = layer, graph.producer(layer.inputs[0])
    if layer is None or graph.only_reader(layer.output) is not reader:
        return False
    if isinstance(layer.operator, LayerNorm) and not isinstance(node.operator, BatchNorm):
        _fold_into_layer_norm(graph, node, layer)
        return True
    if not isinstance(layer.operator, ChannelsOperator) or layer.operator != layer.operator.without_clamp():
        return False
    _fold(graph, node, layer)
    return True


def _moves_only(graph: Graph, node: Node) -> bool:
    """Whether a node is a move that an affine of all elements commutes with."""
    if not isinstance(node.operator, Move):
        return False
    source = graph.values[node.inputs[0]]
    return not (
        node.operator.adds_zeros(source.shape) or source.dropouts or graph.values[node.output].dropouts
    )


def _fold(graph: Graph, node: Node, layer: Node) -> None:
    assert isinstance(node.operator, AffineOperator) and isinstance(layer.operator, ChannelsOperator)
    weight = layer.parameters["weight"]
    prefix = weight.removesuffix("weight").removesuffix("folded_")
    bias = {"layer_bias": layer.parameters["bias"]} if "bias" in layer.parameters else {}
    scale_and_shift, norm = node.operator.scale_and_shift, folded_norm(graph, node)
    channels = graph.values[layer.output].shape[0]
    layer.parameters = {
        "weight": graph.derive(
            f"{prefix}folded_weight",
            partial(_folded_weight, layer.operator, scale_and_shift),
            {"layer_weight": weight, **node.parameters},
            norm,
        ),
        "bias": graph.derive(
            f"{prefix}folded_bias",
            partial(_folded_bias, scale_and_shift, channels),
            {**bias, **node.parameters},
            norm,
        ),
    }
    graph.remove(node)


def _fold_into_layer_norm(graph: Graph, node: Node, norm: Node) -> None:
    assert isinstance(node.operator, AffineOperator)
    prefix = f"{graph.values[norm.output].module_path or norm.output}."
    channels = graph.values[norm.output].shape[0]
    for role, function in (("weight", _layer_norm_weight), ("bias", _layer_norm_bias)):
        own = {f"norm_{role}": norm.parameters[role]} if role in norm.parameters else {}
        made = partial(function, node.operator.scale_and_shift, channels)
        norm.parameters[role] = graph.derive(f"{prefix}folded_{role}", made, {**own, **node.parameters})
    graph.remove(node)


def _fold_into_norm(graph: Graph, node: Node, norm: Node) -> None:
    assert isinstance(node.operator, AffineOperator)
    prefix = norm.parameters["running_var"].removesuffix("running_var")
    scale_and_shift = node.operator.scale_and_shift
    for role, function in (("weight", _norm_weight), ("bias", _norm_bias)):
        own = {f"norm_{role}": norm.parameters[role]} if role in norm.parameters else {}
        sources = {"running_var": norm.parameters["running_var"], **own, **node.parameters}
        norm.parameters[role] = graph.derive(
            f"{prefix}folded_{role}", partial(function, scale_and_shift), sources
        )
    graph.remove(node)


def folded_norm(graph: Graph, node: Node) -> FoldedNorm | None:
    """The properties of a batch norm that training needs after folding; None for another affine."""
    operator = node.operator
    if not isinstance(operator, BatchNorm):
        return None
    return FoldedNorm(graph.values[node.output].module_path, operator.momentum, operator.follows)


def _folded_weight(
    operator: ChannelsOperator, scale_and_shift: ScaleAndShift, layer_weight: Tensor, **affine: Tensor
) -> Tensor:
    scale, _ = scale_and_shift(affine)
    return operator.scale_outputs(layer_weight.double(), scale).float()


def _folded_bias(
    scale_and_shift: ScaleAndShift, channels: int, layer_bias: Tensor | None = None, **affine: Tensor
) -> Tensor:
    scale, shift = scale_and_shift(affine)
    bias = shift if layer_bias is None else shift + layer_bias.double() * scale
    return bias.float().expand(channels).contiguous()


def _norm_weight(
    scale_and_shift: ScaleAndShift, running_var: Tensor, norm_weight: Tensor | None = None, **affine: Tensor
) -> Tensor:
    scale, _ = scale_and_shift(affine)
    weight = torch.ones_like(running_var) if norm_weight is None else norm_weight
    return (weight.double() * scale).float()


def _norm_bias(
    scale_and_shift: ScaleAndShift, running_var: Tensor, norm_bias: Tensor | None = None, **affine: Tensor
) -> Tensor:
    scale, shift = scale_and_shift(affine)
    bias = torch.zeros_like(running_var) if norm_bias is None else norm_bias
    return (bias.double() * scale + shift).float()


def _layer_norm_weight(
    scale_and_shift: ScaleAndShift, channels: int, norm_weight: Tensor | None = None, **affine: Tensor
) -> Tensor:
    scale, _ = scale_and_shift(affine)
    weight = scale if norm_weight is None else norm_weight.double().flatten() * scale
    return weight.float().expand(channels).contiguous()


def _layer_norm_bias(
    scale_and_shift: ScaleAndShift, channels: int, norm_bias: Tensor | None = None, **affine: Tensor
) -> Tensor:
    scale, shift = scale_and_shift(affine)
    bias = shift if norm_bias is None else norm_bias.double().flatten() * scale + shift
    return bias.float().expand(channels).contiguous()
