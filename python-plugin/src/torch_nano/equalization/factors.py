"""Chooses the factors by which channels are scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..calibration.ranges import QuantizationPlan, Range
from ..calibration.statistics import Extremes
from ..ir.graph import Graph, Node
from ..ops._channels import ChannelsOperator
from ..ops._clamp import ClampedOperator
from .ties import ChannelTies

#: Assumed ratio of a channel's largest absolute value to its root mean square, as of a normal distribution.
_CREST = 4.0
#: Of a channel with numbers so much smaller than its value's no weight survives in float32.
_LARGEST = 2.0**20


def choose_factors(graph: Graph, extremes: Mapping[str, Extremes]) -> dict[str, Tensor]:
    """A factor for each channel of the values that gain by it, by the value's name: float32 [channels].

    The factors are powers of two from 1 on, so scaling is exact in float. No value's range grows. Within that
    a factor grows until the error of the channel's rounded numbers, times the weights that read it, is no
    larger than the error that the rounded weights make of its numbers: these weights are divided by the
    factor, and share their scale with those of other channels.

    Args:
        extremes: of each channel of each value over the calibration data.
    """
    ties, plan = ChannelTies(graph), QuantizationPlan(graph)
    limit = torch.full((ties.count,), torch.inf, dtype=torch.float64)
    limit[ties.fixed()] = 1.0
    steps: dict[str, float] = {}
    for value in graph.values:
        one = plan[value]
        members = one.members if isinstance(one, Range) else ()
        if not isinstance(one, Range) or one.dtype != "int8" or not set(members) <= extremes.keys():
            limit[ties.groups(value)] = 1.0
            continue
        low = min(0.0, *(float(extremes[name][0].min()) for name in members))
        high = max(0.0, *(float(extremes[name][1].max()) for name in members))
        steps[value] = (high - low) / 255
        if value in members:
            own = _limits(extremes[value], low, _clamped(graph, value, high))
            limit.scatter_reduce_(0, ties.groups(value), own, "amin")
    wanted = _wanted(graph, ties, extremes, steps)
    factors = torch.minimum(limit, wanted)
    # A channel without numbers or readers gains nothing.
    factors = torch.where(factors.isfinite(), factors.clamp(1.0, _LARGEST), 1.0)
    factors = torch.exp2(factors.log2().floor()).float()
    by_value = {value: factors[ties.groups(value)] for value in graph.values}
    return {value: chosen for value, chosen in by_value.items() if bool((chosen != 1.0).any())}


def _limits(extremes: Extremes, low: float, high: float) -> Tensor:
    """The factors by which the channels may grow until the first bound is reached; infinite for zeros."""
    lows, highs = (bound.double() for bound in extremes)
    below = torch.where(lows < 0, low / lows, torch.inf)
    return torch.minimum(below, torch.where(highs > 0, high / highs, torch.inf))


def _clamped(graph: Graph, value: str, high: float) -> float:
    """The upper bound of a value, which its clamp keeps: a channel that the clamp cuts is not scaled."""
    producer = graph.producer(value)
    if producer is None or not isinstance(producer.operator, ClampedOperator):
        return high
    bound = producer.operator.clamp_high
    return high if bound is None else min(high, bound)


def _wanted(
    graph: Graph, ties: ChannelTies, extremes: Mapping[str, Extremes], steps: Mapping[str, float]
) -> Tensor:
    """The factor of each group from which on the errors of its readers' weights outweigh its own."""
    numbers, weights = (torch.zeros(ties.count, dtype=torch.float64) for _ in range(2))
    for node in graph.nodes:
        if not isinstance(node.operator, ChannelsOperator):
            continue
        value = node.inputs[0]
        if value not in steps or value not in extremes or node.output not in extremes:
            continue
        groups, (low, high) = ties.groups(value), extremes[value]
        by_number, by_weight = _sensitivities(graph, node, extremes[node.output])
        size = torch.maximum(-low, high).double() / _CREST
        numbers.scatter_add_(0, groups, by_number * steps[value] ** 2)
        weights.scatter_add_(0, groups, by_weight * size.square())
    return (numbers / weights).nan_to_num(1.0, torch.inf).sqrt().sqrt()


def _sensitivities(graph: Graph, node: Node, outputs: Extremes) -> tuple[Tensor, Tensor]:
    """For each input channel the sums over its weights, relative to the outputs' sizes: of their squares, by
    which errors of its numbers count, and of the squares of their scales, by which its numbers count.

    Where each output channel has weights of one input channel only, the scales follow the factors, so the
    second is zero.
    """
    assert isinstance(node.operator, ChannelsOperator)
    # Views and norms in float32: copies in float64 would be the largest tensors of a conversion.
    weight = node.operator.by_channels(graph.parameters[node.parameters["weight"]])
    size = torch.maximum(-outputs[0], outputs[1])
    relative = torch.where(size > 0, 1.0 / size, 0.0)
    channels, (readers, read) = graph.values[node.inputs[0]].shape[0], weight.shape[:2]

    def sums(norms: Tensor) -> Tensor:
        """Of the squares by input channel; norms [outputs, inputs] of the weights between both."""
        by_group = (norms * relative[:, None]).reshape(channels // read, -1, read)
        return torch.linalg.vector_norm(by_group, dim=1).flatten().double().square()

    by_weight = torch.zeros(channels, dtype=torch.float64)
    if read > 1:
        low, high = weight.flatten(1).aminmax(dim=1)
        scales = torch.maximum(-low, high) / 127 * math.sqrt(weight[0, 0].numel())
        by_weight = sums(scales[:, None].expand(readers, read))
    return sums(torch.linalg.vector_norm(weight.reshape(readers, read, -1), dim=2)), by_weight
