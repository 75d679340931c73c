"""Keeps the multipliers of requantization in nano-core's faster form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .. import _native
from ..ir.graph import Graph, Node
from ..ops._channels import ChannelsOperator
from .ties import ChannelTies


def keep_one_pass(graph: Graph, ties: ChannelTies, factors: Tensor, steps: Mapping[str, float]) -> Tensor:
    """The factors, lowered where they would make a layer's multiplier leave the one-pass form.

    A multiplier grows with its output channel's factor. It gets that large only where a step of the input,
    times a weight, is not far below a step of the output: such a channel has no finer numbers to gain.

    Args:
        factors: of the groups, powers of two from 1 on: float32 [groups].
        steps: real numbers between neighbouring integers, by the name of each int8 value.
    """
    nodes = [
        node
        for node in graph.nodes
        # A value of zeros alone has steps of zero, and no multiplier.
        if isinstance(node.operator, ChannelsOperator)
        and steps.get(node.inputs[0])
        and steps.get(node.output)
    ]
    while True:
        lowered = factors.clone()
        for node in nodes:
            groups = ties.groups(node.output)
            excess = _multipliers(graph, node, ties, factors, steps) / _native.ONE_PASS_LIMIT
            # The largest power of two by which the multiplier stays below the limit, not at it.
            fitting = factors[groups] * torch.exp2(-excess.log2().floor() - 1)
            limits = torch.where(excess >= 1, fitting.clamp(min=1.0), torch.inf)
            lowered.scatter_reduce_(0, groups, limits, "amin")
        # A lower factor makes weights larger that read its channel.
        if torch.equal(lowered, factors):
            return factors
        factors = lowered


def _multipliers(
    graph: Graph, node: Node, ties: ChannelTies, factors: Tensor, steps: Mapping[str, float]
) -> Tensor:
    """The multiplier of each output channel: float32 [channels]."""
    operator, value = node.operator, node.inputs[0]
    assert isinstance(operator, ChannelsOperator)
    weight = graph.parameters[node.parameters["weight"]]
    weight = operator.outputs_first(operator.scale_inputs(weight, 1.0 / factors[ties.groups(value)]))
    scales = weight.flatten(1).abs().amax(1) * factors[ties.groups(node.output)] / 127
    return scales * (steps[value] / steps[node.output])
