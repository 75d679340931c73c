"""Equalizes a calibrated graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..calibration.calibrate import Observed
from ..calibration.quantize import QuantizedGraph, quantize
from ..calibration.ranges import Bounds, QuantizationPlan, Range, calibrated, union
from ..calibration.statistics import Extremes
from ..ir.graph import Graph
from .factors import choose_factors
from .rescale import rescale


@dataclass(frozen=True)
class Calibrated:
    """A graph in float with what calibration has found of its values, by name."""

    graph: Graph
    ranges: Mapping[str, Bounds]
    #: float32 [*shape].
    means: Mapping[str, Tensor]


def equalize(calibrated: Calibrated, extremes: Mapping[str, Extremes]) -> Calibrated:
    """Scales channels so that each uses more of its value's integers (cross-layer equalization).

    The graph's outputs stay the same, bit for bit, for data within the extremes; a channel that a ReLU6
    clamps is cut at its own extreme beyond them, as int8 cuts a value at its range.

    Args:
        calibrated: its ranges may cut numbers within the extremes; the same numbers are cut afterwards.
        extremes: of each channel of each value over the calibration data.
    """
    factors = choose_factors(calibrated.graph, extremes, calibrated.ranges)
    ranges, means = dict(calibrated.ranges), dict(calibrated.means)
    plan = QuantizationPlan(calibrated.graph)
    for name, chosen in factors.items():
        one = plan[name]
        if name in extremes and isinstance(one, Range):
            low, high = (bound * chosen for bound in extremes[name])
            lowest, highest = union(calibrated.ranges[member] for member in one.members)
            ranges[name] = max(lowest, float(low.min())), min(highest, float(high.max()))
        if name in means:
            means[name] = means[name] * chosen.reshape(-1, *[1] * (means[name].dim() - 1))
    return Calibrated(rescale(calibrated.graph, factors), ranges, means)


def quantize_observed(graph: Graph, observed: Observed) -> tuple[Graph, QuantizedGraph]:
    """Quantizes a graph with the ranges and corrections of its calibration.

    Args:
        graph: the one that was observed, or the same with other dtypes, or a part of it.

    Returns:
        The graph in float, whose channels may be scaled, and in integers.
    """
    found = Calibrated(graph, observed.ranges(graph), observed.means(graph))
    if observed.statistics is not None:
        found = equalize(found, observed.extremes(graph))
    return found.graph, quantize(found.graph, calibrated(found.ranges), found.means)
