"""A histogram of a value's numbers, of which the range with the least error is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .ranges import Bounds, quantization

#: The shares of the whole range that a search tries, and the number of finer ones for each side.
_SHARES = tuple(step / 32 for step in range(4, 33))
_FINER = 9


class Histogram:
    """Counts of numbers in bins of one width that doubles whenever a number does not fit: the counts then
    merge in pairs, exactly, so one pass over the data is enough and the batches' order does not matter.

    >>> histogram = Histogram()
    >>> histogram.observe(torch.arange(-1000.0, 1001.0))
    >>> histogram.total, histogram.bounds
    (2001, (-1000.0, 1000.0))
    """

    #: Bins on each side of zero. The largest absolute value is in the outer half of one side.
    BINS = 4096

    def __init__(self) -> None:
        self.bounds: Bounds = (math.inf, -math.inf)
        self.counts = torch.zeros(2 * self.BINS, dtype=torch.int64)
        #: The bins reach from -2^exponent to 2^exponent; 2^-126 is float32's smallest normal number.
        self.exponent = -126

    def observe(self, tensor: Tensor) -> None:
        """Counts one batch of finite numbers."""
        low, high = (bound.item() for bound in torch.aminmax(tensor))
        self.bounds = min(self.bounds[0], low), max(self.bounds[1], high)
        largest = max(-low, high)
        if largest > 0:
            self._widen(math.frexp(largest)[1])
        bins = (tensor.double().flatten() / self.width).floor().long() + self.BINS
        self.counts += torch.bincount(bins, minlength=2 * self.BINS)

    def _widen(self, exponent: int) -> None:
        while self.exponent < exponent:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.nn.functional.pad(merged, (self.BINS // 2, self.BINS // 2))
            self.exponent += 1

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent) / self.BINS

    @property
    def total(self) -> int:
        """How many numbers were counted."""
        return int(self.counts.sum())

    def middle(self, percentile: float) -> Bounds:
        """The bounds of the middle `percentile` per cent, each off by at most one bin."""
        cumulative = self.counts.cumsum(0)
        left_out = self.total * (1.0 - percentile / 100.0) / 2.0
        first = int(torch.searchsorted(cumulative.double(), left_out, right=True))
        last = int(torch.searchsorted(cumulative.double(), self.total - left_out))
        low, high = (first - self.BINS) * self.width, (last + 1 - self.BINS) * self.width
        return max(low, self.bounds[0]), min(high, self.bounds[1])

    def _filled(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The centres and the counts of the bins that hold numbers: float64 [bins] each."""
        bins = counts.nonzero().flatten()
        centres = (bins.double() + 0.5 - self.BINS) * self.width
        return centres.clamp(*self.bounds), counts[bins].double()

    def squared_error(self, bounds: Bounds) -> float:
        """The sum of the squared errors of all numbers in int8 with these bounds, to within a bin."""
        return _squared_error(*self._filled(self.counts), bounds)

    def least_squared_error(self) -> Bounds:
        """The bounds, within those of the numbers, of the least sum of squared errors in int8."""
        return self._search(_squared_error, self.counts)

    def least_divergence(self) -> Bounds:
        """The bounds, within those of the numbers, by whose int8 levels the distribution of the numbers
        changes least: the least Kullback-Leibler divergence (entropy calibration).

        The bins of zero and of both ends are left out: activations that clamp put many equal numbers there,
        which int8 holds exactly, and no distribution.
        """
        exact = torch.tensor([0.0, *self.bounds], dtype=torch.float64)
        kept = self.counts.clone()
        kept[((exact / self.width).floor().long() + self.BINS)] = 0
        if not kept.any():
            return self.bounds
        return self._search(_divergence, kept)

    def _search(self, loss: Callable[[Tensor, Tensor, Bounds], float], counts: Tensor) -> Bounds:
        """The bounds of the least loss: first one share of both sides, then each side by itself."""
        centres, counts = self._filled(counts)
        low, high = self.bounds

        def best(candidates: list[Bounds]) -> Bounds:
            return min(candidates, key=lambda bounds: loss(centres, counts, bounds))

        found = best([(low * share, high * share) for share in reversed(_SHARES)])
        for _ in range(2):
            found = best([found, *((low * share, found[1]) for share in _around(found[0], low))])
            found = best([found, *((found[0], high * share) for share in _around(found[1], high))])
        return found


def _around(bound: float, whole: float) -> list[float]:
    """Shares of a whole bound around the share that is chosen."""
    share = bound / whole if whole else 1.0
    return [min(1.0, share * (0.6 + 0.1 * step)) for step in range(_FINER)]


def _squared_error(centres: Tensor, counts: Tensor, bounds: Bounds) -> float:
    chosen = quantization(*bounds)
    low, high = chosen.levels
    rounded = (centres / chosen.scale).round().clamp(low, high) * chosen.scale
    return float(((rounded - centres).square() * counts).sum())


def _divergence(centres: Tensor, counts: Tensor, bounds: Bounds) -> float:
    """KL(P || Q): P is the histogram with all numbers outside of the bounds at their edge; in Q the numbers
    within the bounds are spread evenly over the filled bins of their level.
    """
    chosen = quantization(*bounds)
    low, high = chosen.levels
    steps = (centres / chosen.scale).round()
    inside = (steps >= low) & (steps <= high)
    kept = counts[inside]
    if not len(kept):
        return math.inf
    levels = (steps[inside] - low).long()
    spread = (torch.bincount(levels, kept) / torch.bincount(levels).clamp(min=1))[levels]
    clipped = kept.clone()
    clipped[0] += counts[steps < low].sum()
    clipped[-1] += counts[steps > high].sum()
    p, q = clipped / counts.sum(), spread / spread.sum()
    return float((p * (p / q).log()).sum())
