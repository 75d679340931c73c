"""Equalizes a calibrated graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..calibration.calibrate import Observed
from ..calibration.quantize import QuantizedGraph, quantize
from ..calibration.ranges import Bounds, calibrated
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
        calibrated: its ranges cover the extremes.
        extremes: of each channel of each value over the calibration data.
    """
    factors = choose_factors(calibrated.graph, extremes)
    ranges, means = dict(calibrated.ranges), dict(calibrated.means)
    for name, chosen in factors.items():
        if name in extremes:
            low, high = extremes[name]
            ranges[name] = float((low * chosen).min()), float((high * chosen).max())
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
    # The ranges of the other methods cut numbers of the very channels that would be scaled.
    if observed.statistics is not None and observed.method == "minmax":
        found = equalize(found, observed.extremes(graph))
    return found.graph, quantize(found.graph, calibrated(found.ranges), found.means)
