"""Warnings of calibration data that says too little."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import CalibrationWarning, warn
from .batches import Batch

#: Samples from which a range is more than a guess.
FEWEST_SAMPLES = 32


class DataChecks:
    """What calibration data is like, batch by batch.

    Args:
        inputs: the names of the graph's inputs.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = inputs
        self.samples = 0
        #: Of one input, by its place.
        self._numbers = [0 for _ in inputs]
        self._bounds = [(math.inf, -math.inf) for _ in inputs]

    def observe(self, batch: Batch) -> None:
        """Takes in one batch of finite numbers."""
        self.samples += len(batch)
        for place, x in enumerate(batch.inputs):
            self._numbers[place] += x.numel()
            if x.numel():
                low, high = self._bounds[place]
                smallest, largest = x.aminmax()
                self._bounds[place] = min(low, smallest.item()), max(high, largest.item())

    def warn(self, percentile: float | None) -> None:
        """Warns of too few samples, of constant inputs and of too few numbers for a percentile.

        Args:
            percentile: the percentage that the ranges cover; None if they cover all numbers.

        Warns:
            CalibrationWarning: each of the three at most once.
        """
        if self.samples < FEWEST_SAMPLES:
            warn(
                f"the calibration data has {self.samples} samples; from fewer than {FEWEST_SAMPLES} the "
                "ranges are a guess, and what is outside of them saturates on the device: calibrate with a "
                "few hundred typical samples",
                CalibrationWarning,
            )
        constant = [name for name, (low, high) in zip(self.inputs, self._bounds, strict=True) if low == high]
        if constant:
            low = self._bounds[self.inputs.index(constant[0])][0]
            warn(
                f"the calibration data is constant: each number of input {constant[0]!r} is {low:.6g}; the "
                "ranges fit no other numbers: calibrate with typical samples",
                CalibrationWarning,
            )
        if percentile is None or percentile >= 100.0:
            return
        needed = math.ceil(2.0 / (1.0 - percentile / 100.0))
        numbers, name = min(zip(self._numbers, self.inputs, strict=True))
        if numbers < needed:
            enough = 100.0 * (1.0 - 2.0 / max(numbers, 2))
            warn(
                f"method='percentile' leaves out none of the {numbers:,} numbers of input {name!r}: "
                f"{percentile} % of them is all. Calibrate with at least {needed:,} numbers, or lower the "
                f"percentage: percentile={math.floor(enough * 100.0) / 100.0} leaves out one on each side",
                CalibrationWarning,
            )
