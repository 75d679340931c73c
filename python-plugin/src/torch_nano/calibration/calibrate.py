"""Calibration: runs data through a graph in float and observes the range of each value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from ..arguments import one_of, positive_number
from ..arithmetic.quantization import Dtype
from ..errors import InputError, NonFiniteError
from ..ir.graph import Graph, Item
from ..progress import progress_of
from .batches import Batch, Batches, CalibrationData
from .channel_ranges import ChannelRanges
from .data_checks import DataChecks
from .observers import OBSERVERS, Observer
from .ranges import Bounds, quantization
from .statistics import Extremes, Statistics

Method = Literal["minmax", "percentile", "mse", "entropy", "auto"]
_WITH_PERCENTILE = ("percentile", "auto")
#: Percentage that the method "percentile" covers; the rest is below the noise of most sensors.
PERCENTILE = 99.99


@dataclass(frozen=True)
class Observed:
    """The numbers of a graph's values on calibration data."""

    #: By value.
    observers: Mapping[str, Observer]
    method: Method
    #: What corrections need; None: nothing is corrected.
    statistics: Statistics | None
    #: Of the inputs whose channels share one scale, by name.
    channels: Mapping[str, ChannelRanges]

    def ranges(self, graph: Graph) -> dict[str, Bounds]:
        """The range of every value of the graph, or of the same graph with other dtypes, by name.

        Wider dtypes than int8 cover all numbers, as their steps are small enough for outliers.
        """
        return {
            name: self.range(source, graph.dtypes.get(name, "int8"))
            for name, source in self._sources(graph).items()
        }

    def range(self, name: str, dtype: Dtype) -> Bounds:
        """The range of a value in a dtype."""
        return self._int8[name] if dtype == "int8" else self.observers[name].bounds

    def warn_of_channels(self, graph: Graph) -> None:
        """Warns of the channels that the inputs' scales round away in the dtypes of such a graph.

        Warns:
            ChannelRangeWarning: naming input and channels.
        """
        for name, channels in self.channels.items():
            dtype = graph.dtypes.get(name, "int8")
            channels.warn(name, quantization(*self.range(name, dtype), dtype).scale, dtype)

    def means(self, graph: Graph) -> dict[str, Tensor]:
        """:meth:`.statistics.Statistics.means` of such a graph."""
        return {} if self.statistics is None else self._of(graph, self.statistics.means())

    def extremes(self, graph: Graph) -> dict[str, Extremes]:
        """:attr:`.statistics.Statistics.extremes` of such a graph."""
        return {} if self.statistics is None else self._of(graph, self.statistics.extremes)

    def _of(self, graph: Graph, found: Mapping[str, Item]) -> dict[str, Item]:
        """What was found of the values that were observed, by the names of such a graph."""
        return {name: found[source] for name, source in self._sources(graph).items() if source in found}

    def _sources(self, graph: Graph) -> dict[str, str]:
        """For each value of such a graph the one that was observed and has its numbers."""
        sources = {name: name for name in graph.inputs}
        for node in graph.nodes:
            # A requantize that was inserted since has the numbers of its input.
            sources |= {name: name if name in self.observers else node.inputs[0] for name in node.outputs}
        return sources

    @cached_property
    def _int8(self) -> dict[str, Bounds]:
        return {name: observer.range() for name, observer in self.observers.items()}


def calibrate(
    graph: Graph,
    data: CalibrationData,
    method: Method = "minmax",
    percentile: float | None = None,
) -> dict[str, Bounds]:
    """The range of every value of a graph, by name; see :func:`observe`.

    Warns:
        ChannelRangeWarning: an input's scale rounds some of its channels away.

    >>> from torch_nano.capture.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.ReLU()), torch.zeros(2, 3))
    >>> calibrate(graph, torch.tensor([[-1.0, 2.0, 4.0]]))
    {'input': (-1.0, 4.0), 'relu': (0.0, 4.0)}
    """
    observed = observe(graph, data, method, percentile)
    observed.warn_of_channels(graph)
    return observed.ranges(graph)


def observe(
    graph: Graph,
    data: CalibrationData,
    method: Method = "minmax",
    percentile: float | None = None,
    keep: Callable[[Batch], None] | None = None,
    correct: bool = False,
) -> Observed:
    """Runs data through a graph in float and observes its values.

    Args:
        data: a tensor [N, ...], or an iterable of such tensors, of tuples that begin with one for each input
            (a DataLoader) or of dicts that have one by each input's name; such a tuple or dict itself.
        method: which numbers int8 covers. "minmax": all; "percentile": the middle `percentile` per cent;
            "mse": those of the least squared error in int8; "entropy": those of the least Kullback-Leibler
            divergence; "auto": for each value that of these with the least squared error.
        percentile: of the methods "percentile" and "auto", above 0 and at most 100; None: 99.99.
        keep: called with each batch.
        correct: also observe what corrections need.

    Warns:
        CalibrationWarning: there are few samples, an input is constant, or a percentile leaves out nothing.

    Raises:
        InputError: the data is empty or of a wrong shape or dtype, the method is unknown, or there is a
            percentile that it does not use.
        NonFiniteError: NaN or infinity in the data, a weight or an activation.
    """
    one_of("method", method, get_args(Method))
    percentage = _percentage(method, percentile)
    check_parameters(graph)
    observers: dict[str, Observer] = {}
    checks = DataChecks(graph.inputs)
    channels = {
        name: ChannelRanges()
        for name in graph.inputs
        if graph.values[name].index_limit is None and not _has_scales(graph, name)
    }

    statistics = Statistics(graph) if correct else None

    def observe_value(name: str, tensor: Tensor) -> None:
        check_value(graph, name, tensor, "calibration")
        if name not in observers:
            observers[name] = OBSERVERS[method](percentage)
        observers[name].observe(tensor)
        if name in channels:
            channels[name].observe(tensor)
        if statistics is not None:
            statistics.observe(name, tensor)

    batches = Batches(graph, data)
    with torch.no_grad(), progress_of("calibration", batches.samples) as advance:
        for batch in batches:
            graph.float_run(*batch.inputs, observe=observe_value)
            checks.observe(batch)
            if keep is not None:
                keep(batch)
            advance(len(batch))
    if not observers:
        raise InputError("the calibration data is empty; expected at least one sample")
    checks.warn(percentage if method == "percentile" else None)
    return Observed(observers, method, statistics, channels)


def _percentage(method: Method, percentile: float | None) -> float:
    """The checked percentage of the method's percentile."""
    if percentile is None:
        return PERCENTILE
    percentage = positive_number("percentile", percentile, within=(0.0, 100.0), error=InputError)
    if method not in _WITH_PERCENTILE:
        raise InputError(
            f"percentile is {percentile} and method {method!r}, which has none; expected method='percentile' "
            "(or 'auto', of which it is one candidate), or no percentile"
        )
    return percentage


def check_value(graph: Graph, name: str, tensor: Tensor, purpose: str) -> None:
    """Checks that the numbers of a value are finite.

    Raises:
        NonFiniteError: one is not; the message names the module.
    """
    # The bounds of a tensor with NaN are NaN: one pass, several times as fast as isfinite on each number.
    if tensor.numel() and not all(math.isfinite(bound.item()) for bound in torch.aminmax(tensor)):
        place = (
            "the input"
            if name in graph.inputs
            else f"the output of module {_path(graph.values[name].module_path)}"
        )
        raise NonFiniteError(f"{purpose} data: {place} (value {name}) holds NaN or infinity")


def check_parameters(graph: Graph) -> None:
    """Checks that all parameters are finite.

    Raises:
        NonFiniteError: one is not; the message names the parameter and its module.
    """
    named = [(name, graph.module_path(node)) for node in graph.nodes for name in node.parameters.values()]
    for affines in graph.affines.values():
        named += [(name, affine.module_path) for affine in affines for name in affine.parameters.values()]
    for name, path in named:
        if not torch.isfinite(graph.parameters[name]).all():
            raise NonFiniteError(f"parameter {name} of module {_path(path)} holds NaN or infinity")
    for name, affines in graph.affines.items():
        for affine in affines:
            numbers = affine.scale_and_shift(graph.parameters)
            if not all(torch.isfinite(number).all() for number in numbers):
                raise NonFiniteError(
                    f"module {_path(affine.module_path)} multiplies input {name!r} by infinity or NaN, or "
                    "adds it: is a standard deviation or a divisor 0?"
                )


def _has_scales(graph: Graph, name: str) -> bool:
    """Whether the affines of an input give each channel a scale of its own."""
    found = graph.factor_and_shift(name)
    return found is not None and bool((found[0] != found[0][0]).any())


def _path(module_path: str) -> str:
    return repr(module_path) if module_path else "'' (the model itself)"
