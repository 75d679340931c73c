"""Sums over data from which errors are computed, batch by batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..arithmetic.tensors import channel_extremes, dequantize_tensor
from ..errors import InputError


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; infinite without noise.

    >>> decibels(100.0, 1.0), decibels(0.0, 0.0), decibels(0.0, 1.0)
    (20.0, inf, -inf)
    """
    if noise == 0.0:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal > 0.0 else -math.inf


class ErrorSums:
    """The error of numbers against those expected.

    Args:
        factors: what each channel of both was multiplied by; the largest error is that without them. Empty:
            not scaled.
    """

    def __init__(self, factors: Sequence[float] = ()) -> None:
        self._factors = torch.tensor(factors, dtype=torch.float64)
        self.signal = self.found = self.noise = self.product = self.largest = 0.0

    def observe(self, expected: Tensor, found: Tensor) -> None:
        """Takes in one batch: two float tensors of one shape, [N, channels, ...] if there are factors."""
        if not expected.numel():
            return
        expected, found = expected.double(), found.double()
        error = (found - expected).abs()
        self.signal += float(expected.square().sum())
        self.found += float(found.square().sum())
        self.product += float((expected * found).sum())
        self.noise += float(error.square().sum())
        if len(self._factors):
            error = error / self._factors.reshape(-1, *[1] * (error.dim() - 2))
        self.largest = max(self.largest, float(error.max()))

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio in dB: 10 log10 of the sums of squares of the expected numbers
        and of the errors. Infinite without an error.
        """
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between both, in [-1, 1]; 1 if both are zeros, 0 if only one is."""
        if self.signal == 0.0 or self.found == 0.0:
            return float(self.signal == self.found)
        return min(max(self.product / math.sqrt(self.signal) / math.sqrt(self.found), -1.0), 1.0)


class ValueSums:
    """A value of the integer network against that of the float network.

    Args:
        quantization: of the value.
        factors: what each of its channels was multiplied by; empty: not scaled.
    """

    def __init__(self, quantization: Quantization, factors: Sequence[float] = ()) -> None:
        self.quantization = quantization
        self.error = ErrorSums(factors)
        self.numbers = self.saturated = 0
        #: How often each integer occurs.
        low, high = quantization.bounds
        self.counts = torch.zeros(high - low + 1 if quantization.dtype == "int8" else 0, dtype=torch.int64)
        #: Smallest and largest number of each channel, in float and in int8.
        self._real: tuple[Tensor, Tensor] | None = None
        self._integers: tuple[Tensor, Tensor] | None = None

    def observe(self, real: Tensor, integers: Tensor) -> None:
        """Takes in one batch [N, channels, ...] of both networks."""
        if not real.numel():
            return
        self.error.observe(real, dequantize_tensor(integers, self.quantization))
        low, high = self.quantization.range
        step = self.quantization.scale
        self.saturated += int(((real < low - step) | (real > high + step)).sum())
        self.numbers += real.numel()
        if len(self.counts):
            flat = integers.flatten().long() - self.quantization.bounds[0]
            self.counts += torch.bincount(flat, minlength=len(self.counts))
        self._real = _extremes(real, self._real)
        self._integers = _extremes(integers, self._integers)

    @property
    def saturated_share(self) -> float:
        """The share, 0 to 1, of the float network's numbers more than a step outside of the range."""
        return self.saturated / self.numbers if self.numbers else 0.0

    @property
    def levels(self) -> tuple[int, ...]:
        """For each channel the levels from its smallest to its largest integer; 0 if it is constant in
        float.
        """
        if self._real is None or self._integers is None:
            return ()
        span = (self._integers[1].long() - self._integers[0].long() + 1) * (self._real[0] < self._real[1])
        return tuple(span.tolist())

    def central_levels(self, share: float) -> int:
        """The levels from the smallest to the largest integer without the outermost numbers.

        Args:
            share: of the numbers that are counted, 0 to 1; the rest is left out, half of it on each side.
        """
        cumulative = self.counts.cumsum(0)
        left_out = int(self.numbers * (1.0 - share) / 2.0)
        first = int(torch.searchsorted(cumulative, left_out, right=True))
        last = int(torch.searchsorted(cumulative, self.numbers - left_out))
        return last - first + 1


class OutputSums:
    """One output of the whole network, in float and in int8.

    Args:
        classes: the number of classes of an output of indices, such as those of an argmax; None: unknown.
    """

    def __init__(self, classes: int | None = None) -> None:
        self.error = ErrorSums()
        self._classes = classes
        #: Whether it holds indices, such as those of an argmax, which agree or not.
        self.holds_indices = False
        #: Of each sample, in dB; of indices infinite.
        self._sqnrs: list[float] = []
        #: Decisions, those that agree, labels, and labels that each network finds.
        self.decisions = self.agreeing = self.labels = self.right = self.right_in_int8 = 0

    @property
    def samples(self) -> int:
        """How many samples were observed."""
        return len(self._sqnrs)

    @property
    def median_sqnr(self) -> float:
        """The lower median of the samples' SQNRs in dB."""
        return statistics.median_low(self._sqnrs)

    def observe(self, expected: Tensor, found: Tensor, labels: Tensor | None) -> None:
        """Takes in one batch [N, classes, ...], or classes [N, ...] in int64, with the labels [N, ...] if
        they are known. Labels that are no integers are targets of another kind, and not compared.

        Raises:
            InputError: the labels are integers of another shape, or not among the classes.
        """
        self.holds_indices = not expected.is_floating_point()
        if self.holds_indices:
            self._sqnrs += [math.inf] * len(expected)
            self._decide(expected, found, labels, self._classes)
            return
        rows = expected.double().reshape(len(expected), -1)
        noise = (found.double().reshape(rows.shape) - rows).square().sum(1)
        signal = rows.square().sum(1)
        self._sqnrs += map(decibels, signal.tolist(), noise.tolist())
        self.error.observe(expected, found)
        if expected.dim() < 2 or expected.shape[1] < 2 or not expected.numel():
            return
        self._decide(expected.argmax(1), found.argmax(1), labels, expected.shape[1])

    def _decide(self, in_float: Tensor, in_int8: Tensor, labels: Tensor | None, classes: int | None) -> None:
        """Takes in the classes [N, ...] that both networks find, and the right ones if they are known.

        Args:
            classes: their number, if it is known.
        """
        self.decisions += in_float.numel()
        self.agreeing += int((in_float == in_int8).sum())
        if labels is None or labels.is_floating_point() or labels.is_complex():
            return
        if labels.shape != in_float.shape:
            raise InputError(
                f"the labels have shape {tuple(labels.shape)}; expected {tuple(in_float.shape)}: the index "
                "of one of the classes for each sample"
            )
        outside = (labels < 0) | (labels >= (math.inf if classes is None else classes))
        if outside.any():
            expected = "0 or more" if classes is None else f"0 to {classes - 1}"
            raise InputError(
                f"the labels hold {labels[outside][0].item()}; expected {expected}, the indices of the "
                "classes: leave out the samples of other classes"
            )
        self.labels += labels.numel()
        self.right += int((in_float == labels).sum())
        self.right_in_int8 += int((in_int8 == labels).sum())


def _extremes(x: Tensor, before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The smallest and largest number of each channel of x [N, channels, ...], and of the batches before."""
    low, high = channel_extremes(x)
    return (low, high) if before is None else (torch.minimum(low, before[0]), torch.maximum(high, before[1]))
