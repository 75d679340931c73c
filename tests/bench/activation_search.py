"""What 8 bits can reach: networks in float that round their weights alone, or their values alone, in the
ranges of calibration and in those that a search finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_nano.calibration.quantize import QuantizedGraph, quantize
from torch_nano.calibration.ranges import Bounds, QuantizationPlan, Range, calibrated, union
from torch_nano.comparison.sums import ErrorSums
from torch_nano.equalization.equalize import Calibrated
from torch_nano.ir.graph import Graph, Node, new_name
from torch_nano.ops._channels import ChannelsOperator

#: Shares of the range found so far that a step of the search tries.
SHARES = (0.7, 0.8, 0.9, 0.95, 1.05)
SWEEPS = 2
#: Samples whose error the search lowers, and of which the figures are: those of the search are optimistic.
SAMPLES = 32
#: Widths up to this are tried until one reaches the target.
WIDEST = 16
#: Numbers of shares of a channel's range, and of numbers of the channel on which they are tried.
CHANNEL_SHARES, NUMBERS = 24, 20_000


@dataclass(frozen=True)
class Reached:
    """SQNRs in dB with float weights and rounded activations, but for the first."""

    #: With weights of 8 bits and float activations.
    weights: float
    #: With 8 bits in the ranges of min-max.
    minmax: float
    #: With 8 bits in the ranges that the search found.
    searched: float
    #: With 8 bits in a range of each channel.
    by_channel: float
    #: The least width with which the min-max ranges reach the target; None: 16 bits do not.
    bits: int | None


class RoundedRun:
    """Runs a network in float, with the values that have a range of their own rounded to it.

    Args:
        ranges: of every value, by name.
    """

    def __init__(self, graph: Graph, ranges: Mapping[str, Bounds]) -> None:
        self.graph = graph
        plan = QuantizationPlan(graph)
        self._range_of = {value: one.name for value in graph.values if isinstance(one := plan[value], Range)}
        #: By the name of the range.
        self.bounds = {
            one.name: union([(0.0, 0.0), *(ranges[name] for name in one.members)])
            for value in graph.values
            if isinstance(one := plan[value], Range)
        }

    def rounded(self, value: str, tensor: Tensor, bits: int = 8) -> Tensor:
        """The numbers of a value as its integers hold them."""
        if value not in self._range_of:
            return tensor
        low, high = self.bounds[self._range_of[value]]
        levels = 2**bits - 1
        step = (high - low) / levels
        if step == 0.0:
            return tensor
        lowest = math.floor(low / step + 0.5)
        kept: Tensor = (tensor / step).round().clamp(lowest, lowest + levels) * step
        return kept

    def sqnr(self, x: Tensor, bits: int = 8) -> float:
        """The SQNR of the first output in dB."""
        return activations(self.graph, x, lambda value, tensor: self.rounded(value, tensor, bits))


def search(found: Calibrated, x: Tensor, target: float, report: Callable[[str], None]) -> Reached:
    """Coordinate descent: one range after the other takes the share with the largest SQNR of the output.

    Args:
        found: with the ranges of min-max.
        target: the SQNR in dB for which the width is searched.
        report: called with a line after each sweep.
    """
    graph, x = found.graph, x[:SAMPLES]
    run = RoundedRun(graph, found.ranges)
    weights = sqnr_of(
        graph, rounded_weights(graph, quantize(graph, calibrated(found.ranges), found.means)), x
    )
    minmax = run.sqnr(x)
    by_channel = activations(graph, x, channel_rounding(run, x))
    bits = next((bits for bits in range(8, WIDEST + 1) if run.sqnr(x, bits) >= target), None)
    best = minmax
    for sweep in range(SWEEPS):
        for name, (low, high) in list(run.bounds.items()):
            kept = low, high
            for share in SHARES:
                run.bounds[name] = low * share, high * share
                sqnr = run.sqnr(x)
                if sqnr > best:
                    best, kept = sqnr, run.bounds[name]
            run.bounds[name] = kept
        report(f"sweep {sweep + 1}: {best:.2f} dB")
    return Reached(weights, minmax, best, by_channel, bits)


def rounded_weights(graph: Graph, quantized: QuantizedGraph) -> Graph:
    """The graph in float with the weights and biases of convolutions and Linear layers that int8 has."""
    graph = graph.copy()
    for node in graph.nodes:
        operator = node.operator
        if not isinstance(operator, ChannelsOperator):
            continue
        tensors, step = quantized.tensors[node.name], quantized.graph.quantization(node.inputs[0]).scale
        scales = tensors["weight_scales"]
        weight = operator.scale_outputs(operator.from_device_weight(tensors["weights"]).float(), scales)
        shape = graph.parameters[node.parameters["weight"]].shape
        rounded = {
            "weight": weight.reshape(shape),
            "bias": (tensors["bias"].double() * scales * step).float(),
        }
        for role, tensor in rounded.items():
            name = new_name(f"{node.name}.{role}.rounded", graph.parameters)
            graph.parameters[name], node.parameters[role] = tensor, name
    return graph


def sqnr_of(graph: Graph, other: Graph, x: Tensor) -> float:
    """The SQNR in dB of the first output of another graph against that of a graph, both in float."""
    with torch.no_grad():
        expected, found = graph.float_run(x)[0], other.float_run(x)[0]
    sums = ErrorSums()
    sums.observe(expected, found)
    return sums.sqnr


def activations(graph: Graph, x: Tensor, round_value: Callable[[str, Tensor], Tensor]) -> float:
    """The SQNR if only the numbers of values are rounded."""

    def run(node: Node, given: list[Tensor]) -> list[Tensor]:
        outputs = graph.layer(node, given).float_run()
        return [round_value(name, y) for name, y in zip(node.outputs, outputs, strict=True)]

    after = [graph.after_affines(name, t) for name, t in zip(graph.inputs, graph.from_user([x]), strict=True)]
    with torch.no_grad():
        entering = [round_value(name, t) for name, t in zip(graph.inputs, after, strict=True)]
        found, expected = graph.to_user(graph.run(entering, run)), graph.float_run(x)
    sums = ErrorSums()
    sums.observe(expected[0], found[0])
    return sums.sqnr


def channel_rounding(run: RoundedRun, x: Tensor) -> Callable[[str, Tensor], Tensor]:
    """Rounds each channel in the range, searched on calibration data, of the least squared error."""
    graph = run.graph
    bounds: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(name: str, tensor: Tensor) -> None:
        if tuple(tensor.shape[1:]) == graph.values[name].shape:
            bounds[name] = channel_ranges(tensor)

    with torch.no_grad():
        graph.float_run(x, observe=observe)

    def round_value(name: str, tensor: Tensor) -> Tensor:
        if name in graph.inputs or name not in bounds:
            return run.rounded(name, tensor)
        low, high = (bound.reshape(1, -1, *[1] * (tensor.dim() - 2)) for bound in bounds[name])
        step = ((high - low) / 255).clamp(min=1e-30)
        return ((tensor / step).round() * step).clamp(low, high)

    return round_value


def channel_ranges(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The ranges of the channels of [N, channels, ...] with the least squared error: [channels] each."""
    numbers = tensor.movedim(1, 0).flatten(1)
    numbers = numbers[:, :: -(-numbers.shape[1] // NUMBERS)]
    low, high = numbers.aminmax(dim=1, keepdim=True)
    low, high = low.clamp(max=0), high.clamp(min=0)
    least = torch.full_like(low, torch.inf)
    share = torch.ones_like(low)
    for tried in torch.linspace(1.0, 0.4, CHANNEL_SHARES):
        step = ((high - low) * tried / 255).clamp(min=1e-30)
        kept = ((numbers / step).round() * step).clamp(low * tried, high * tried)
        error = (kept - numbers).square().sum(1, keepdim=True)
        share, least = torch.where(error < least, tried, share), torch.minimum(error, least)
    return (low * share)[:, 0], (high * share)[:, 0]
