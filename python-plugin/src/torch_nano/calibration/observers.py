"""Observers: they choose the range of a value's integers from calibration data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .histogram import Histogram
from .ranges import Bounds


class Observer(ABC):
    """Observes the tensors of one value, batch by batch, and chooses the range that its integers cover."""

    @abstractmethod
    def observe(self, tensor: Tensor) -> None:
        """Observes one batch of finite numbers."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """The lowest and the highest number of all."""

    @abstractmethod
    def range(self) -> Bounds:
        """The lowest and the highest number to cover in int8."""


class MinMaxObserver(Observer):
    """Covers all numbers it has observed.

    >>> observer = MinMaxObserver()
    >>> observer.observe(torch.tensor([1.0, 2.0])), observer.observe(torch.tensor([-3.0]))
    (None, None)
    >>> observer.range()
    (-3.0, 2.0)
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def observe(self, tensor: Tensor) -> None:
        low, high = torch.aminmax(tensor)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())

    @property
    def bounds(self) -> Bounds:
        return self.low, self.high

    def range(self) -> Bounds:
        return self.bounds


class HistogramObserver(Observer):
    """Counts the numbers in a histogram, by which a subclass chooses the range."""

    def __init__(self) -> None:
        self.histogram = Histogram()

    def observe(self, tensor: Tensor) -> None:
        self.histogram.observe(tensor)

    @property
    def bounds(self) -> Bounds:
        return self.histogram.bounds


class PercentileObserver(HistogramObserver):
    """Covers the middle `percentile` per cent and leaves out half of the rest on each side.

    A bound is off by at most one bin: 1/2048 of the largest absolute value.

    >>> observer = PercentileObserver(90.0)
    >>> observer.observe(torch.arange(-1000.0, 1001.0))
    >>> low, high = observer.range()
    >>> abs(low + 900) <= 1 and abs(high - 900) <= 1
    True
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    def range(self) -> Bounds:
        return self.histogram.middle(self.percentile)


class MseObserver(HistogramObserver):
    """Covers the range of the least mean squared error in int8 (MSE)."""

    def range(self) -> Bounds:
        return self.histogram.least_squared_error()


class EntropyObserver(HistogramObserver):
    """Covers the range of the least Kullback-Leibler divergence."""

    def range(self) -> Bounds:
        return self.histogram.least_divergence()


class AutoObserver(HistogramObserver):
    """Covers the range of the other observers of the least squared error.

    Args:
        percentile: of the :class:`PercentileObserver`.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    def range(self) -> Bounds:
        found = self.histogram
        candidates = (
            found.bounds,
            found.middle(self.percentile),
            found.least_squared_error(),
            found.least_divergence(),
        )
        return min(candidates, key=found.squared_error)


#: Makes the observer of each method for a percentile.
OBSERVERS: Mapping[str, Callable[[float], Observer]] = MappingProxyType(
    {
        "minmax": lambda percentile: MinMaxObserver(),
        "percentile": PercentileObserver,
        "mse": lambda percentile: MseObserver(),
        "entropy": lambda percentile: EntropyObserver(),
        "auto": AutoObserver,
    }
)
