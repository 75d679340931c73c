"""Chooses the factors by which channels are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration.ranges import Bounds, QuantizationPlan, Range, union
from ..calibration.statistics import Extremes
from ..ir.graph import Graph
from ..ops._channels import ChannelsOperator
from ..ops._clamp import ClampedOperator
from .multipliers import keep_one_pass
from .ties import ChannelTies

#: Assumed ratio of a channel's largest absolute value to its root mean square, as of a normal distribution.
_CREST = 4.0
#: Of a channel with numbers so much smaller than its value's no weight survives in float32.
_LARGEST = 2.0**20


def choose_factors(
    graph: Graph, extremes: Mapping[str, Extremes], ranges: Mapping[str, Bounds]
) -> dict[str, Tensor]:
    """A factor for each channel of the values that gain by it, by the value's name: float32 [channels].

    The factors are powers of two from 1 on, so scaling is exact in float. No value's range grows, and a range
    cuts no number that it did not cut before: a channel that reaches a bound keeps its factor. Within that a
    factor grows until the error of the channel's rounded numbers, times the weights that read it, is no
    larger than the error that the rounded weights make of its numbers: these weights are divided by the
    factor, and share their scale with those of other channels. The factors start at their largest and are
    lowered until none is too large for the scales that the weights then have: the scales of the original
    weights are those of the largest weights, which small channels have. No factor makes the requantization of
    a layer slower.

    Args:
        extremes: of each channel of each value over the calibration data.
        ranges: that each value's integers cover.
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
        low, high = union([(0.0, 0.0), *(ranges[name] for name in members)])
        steps[value] = (high - low) / 255
        if value in members:
            own = _limits(extremes[value], low, _clamped(graph, value, high))
            limit.scatter_reduce_(0, ties.groups(value), own, "amin")
    # A channel without numbers gains nothing.
    factors = _power_of_two(torch.where(limit.isfinite(), limit, 1.0))
    readers = list(_readers(graph, ties, extremes, steps))
    numbers = _sums(ties.count, ((reader.groups, reader.number_errors()) for reader in readers))
    while True:
        weights = _sums(ties.count, ((reader.groups, reader.weight_errors(factors)) for reader in readers))
        # Errors of numbers fall with the factor's square, those of weights grow with it.
        balanced = (numbers / weights).nan_to_num(1.0, torch.inf).sqrt().sqrt()
        lowered = _power_of_two(torch.minimum(factors, balanced))
        if torch.equal(lowered, factors):
            break
        factors = lowered
    factors = keep_one_pass(graph, ties, factors.float(), steps)
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


def _power_of_two(factors: Tensor) -> Tensor:
    return torch.exp2(factors.clamp(1.0, _LARGEST).log2().floor())


def _sums(count: int, terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of each group; float64 [count].

    Args:
        terms: groups int64 [n], and a number for each; float64 [n].
    """
    sums = torch.zeros(count, dtype=torch.float64)
    for groups, numbers in terms:
        sums.scatter_add_(0, groups, numbers)
    return sums


@dataclass(frozen=True)
class _Reader:
    """A layer whose weights read channels. Errors are squares, relative to the outputs' sizes, up to a factor
    that all have in common.
    """

    #: float32 [outputs, inputs that each output reads, window]; copies would be the largest tensors of a
    #: conversion.
    weight: Tensor
    #: The group of each input channel; int64 [inputs].
    groups: Tensor
    #: Of the input's integers.
    step: float
    #: Largest absolute value of each input and output channel; float32 [inputs], [outputs].
    input_sizes: Tensor
    output_sizes: Tensor

    def number_errors(self) -> Tensor:
        """What the rounded numbers of each input channel make of the outputs; float64 [inputs]."""
        return self._by_input(torch.linalg.vector_norm(self.weight, dim=2)) * self.step**2

    def weight_errors(self, factors: Tensor) -> Tensor:
        """What the rounded weights make of each input channel, for a factor of 1; float64 [inputs].

        Where each output reads one channel, the scale of its weights follows the factor, so that is zero.

        Args:
            factors: by which the channels of each group are scaled, and the weights are divided.
        """
        outputs, read, window = self.weight.shape
        if read == 1:
            return torch.zeros(len(self.groups), dtype=torch.float64)
        low, high = self.weight.aminmax(dim=2)
        scaled = self._by_group(torch.maximum(-low, high)) / factors[self.groups].float().reshape(-1, 1, read)
        scales = scaled.amax(2).reshape(outputs, 1) / 127
        sums = self._by_input((scales * math.sqrt(window)).expand(outputs, read))
        return sums * (self.input_sizes.double() / _CREST).square()

    def _by_input(self, norms: Tensor) -> Tensor:
        """The sums of squares over the outputs; norms float32 [outputs, inputs that each reads]."""
        relative = torch.where(self.output_sizes > 0, 1.0 / self.output_sizes, 0.0)
        by_group = self._by_group(norms * relative[:, None])
        sums: Tensor = torch.linalg.vector_norm(by_group, dim=1).flatten().double().square()
        return sums

    def _by_group(self, weights: Tensor) -> Tensor:
        """[outputs, inputs that each reads] as [groups of the layer, outputs, inputs]."""
        read = weights.shape[1]
        return weights.reshape(len(self.groups) // read, -1, read)


def _readers(
    graph: Graph, ties: ChannelTies, extremes: Mapping[str, Extremes], steps: Mapping[str, float]
) -> Iterator[_Reader]:
    for node in graph.nodes:
        value, operator = node.inputs[0], node.operator
        if not isinstance(operator, ChannelsOperator):
            continue
        if value in steps and extremes.keys() >= {value, node.output}:
            weight = operator.by_channels(graph.parameters[node.parameters["weight"]])
            sizes = (torch.maximum(-low, high) for low, high in (extremes[value], extremes[node.output]))
            yield _Reader(weight.reshape(*weight.shape[:2], -1), ties.groups(value), steps[value], *sizes)
