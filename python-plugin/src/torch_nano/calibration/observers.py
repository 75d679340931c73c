"""Observers: they track the range of a value on calibration data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Observer(ABC):
    """Observes the tensors of one value, batch by batch, and chooses the range that its integers cover."""

    @abstractmethod
    def observe(self, tensor: Tensor) -> None:
        """Observes one batch of finite numbers."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """The lowest and the highest number to cover."""


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

    def range(self) -> tuple[float, float]:
        return self.low, self.high


class PercentileObserver(Observer):
    """Covers the middle `percentile` per cent and leaves out half of the rest on each side.

    The numbers are counted in a histogram whose bins double in width (their counts merge in pairs) whenever a
    number does not fit, so one pass over the data is enough. A bound is off by at most one bin: 1/2048 of the
    largest absolute value.

    >>> observer = PercentileObserver(90.0)
    >>> observer.observe(torch.arange(-1000.0, 1001.0))
    >>> low, high = observer.range()
    >>> abs(low + 900) <= 1 and abs(high - 900) <= 1
    True
    """

    #: Bins on each side of zero.
    BINS = 4096

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.extremes = MinMaxObserver()
        self.counts = torch.zeros(2 * self.BINS, dtype=torch.int64)
        #: The bins reach from -2^exponent to 2^exponent; 2^-126 is float32's smallest normal number.
        self.exponent = -126

    def observe(self, tensor: Tensor) -> None:
        self.extremes.observe(tensor)
        low, high = torch.aminmax(tensor)
        largest = max(-low.item(), high.item())
        if largest > 0:
            self._widen(math.frexp(largest)[1])
        width = math.ldexp(1.0, self.exponent) / self.BINS
        bins = (tensor.double().flatten() / width).floor().long() + self.BINS
        self.counts += torch.bincount(bins, minlength=2 * self.BINS)

    def _widen(self, exponent: int) -> None:
        while self.exponent < exponent:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.nn.functional.pad(merged, (self.BINS // 2, self.BINS // 2))
            self.exponent += 1

    def range(self) -> tuple[float, float]:
        cumulative = self.counts.cumsum(0)
        total = int(cumulative[-1])
        left_out = total * (1.0 - self.percentile / 100.0) / 2.0
        width = math.ldexp(1.0, self.exponent) / self.BINS
        first = int(torch.searchsorted(cumulative.double(), left_out, right=True))
        last = int(torch.searchsorted(cumulative.double(), total - left_out))
        low, high = (first - self.BINS) * width, (last + 1 - self.BINS) * width
        return max(low, self.extremes.low), min(high, self.extremes.high)
