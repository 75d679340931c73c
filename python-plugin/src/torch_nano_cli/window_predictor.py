"""Predictions of a device for windows of samples that the PC sends it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_nano import Device
from torch_nano.arithmetic.layout import to_device, torch_shapes
from torch_nano.device import Prediction
from torch_nano.errors import InputError

from .sensor import SensorSample

#: Halvings of an interval, enough for a float64.
_HALVINGS = 60


@dataclass(frozen=True)
class WindowPrediction:
    """What the device makes of a window."""

    #: The window as an input of the model.
    window: Tensor
    prediction: Prediction
    #: The label of all its samples; "" if that is not known, or not one.
    label: str


class WindowPredictor:
    """Keeps the latest samples, and has the device predict at each hop.

    Args:
        hop: samples from window to window; None: half a window, or a whole one of a model with states, whose
            windows follow each other.

    Raises:
        InputError: the model has several inputs, or takes indices.
    """

    def __init__(self, device: Device, hop: int | None) -> None:
        self.device, self._hop = device, hop
        first, *others = device.info.inputs
        if others or first.quantization.holds_indices:
            raise InputError(
                f"the model takes {', '.join(value.name for value in device.info.inputs)}; a sensor is for a "
                "model of one input of numbers"
            )
        nano = device._nano
        shape = torch_shapes(first.shape)[0] if nano is None else nano.input_shapes[first.name]
        layout = None if nano is None else nano.input_layouts.get(first.name)
        order = torch.arange(first.elements).reshape(1, *shape)
        #: For each element in the device's order, which is that of time, its place in torch's.
        self._order = to_device(order if layout is None else layout.apply(order)).flatten()
        self._shape = shape
        self._samples: list[SensorSample] = []
        self._until_due = 0

    def push(self, sample: SensorSample) -> WindowPrediction | None:
        """Takes a sample; returns what the device makes of the window if one is due.

        Raises:
            InputError: the model's input has no whole number of such samples.
            DeviceError: the device does not answer.
        """
        length = self._length(len(sample.values))
        if sample.starts:
            self._samples.clear()
            self._until_due = length
            if self.device.info.has_states:
                self.device.reset_states()
        self._samples = [*self._samples[1 - length :], sample] if length > 1 else [sample]
        self._until_due -= 1
        if self._until_due > 0:
            return None
        self._until_due = self._step(length)
        window = torch.empty(prod(self._shape))
        window[self._order] = torch.from_numpy(np.concatenate([one.values for one in self._samples]))
        window = window.reshape(self._shape)
        labels = {one.label for one in self._samples}
        label = labels.pop() if len(labels) == 1 else ""
        return WindowPrediction(window, self.device.predict(window), label)

    def _length(self, numbers: int) -> int:
        """Samples of a window."""
        elements = self._order.numel()
        if elements % numbers:
            raise InputError(
                f"a sample has {numbers} numbers, the model's input {elements} (shape {list(self._shape)}); "
                "expected a whole number of samples"
            )
        return elements // numbers

    def _step(self, length: int) -> int:
        if self.device.info.has_states:
            return length
        return max(length // 2, 1) if self._hop is None else self._hop


def shares(prediction: Prediction) -> NDArray[np.float64] | None:
    """The probability of each class, [classes], as the device's integers say it of the predicted one.

    The device says the probability of one class only, which may have a temperature. The others' are the
    softmax of its logits with the temperature that gives that one. None if classes do not exclude each other.

    >>> made = Prediction(0, "a", 0.75, 0.5, True, {}, np.array([8, 2], np.int32), 0)
    >>> shares(made).round(3)
    array([0.75, 0.25])
    """
    if prediction.confidence is None:
        return None
    logits = prediction.logits if prediction.logits.size else next(iter(prediction.outputs.values()))
    below = logits.astype(np.float64) - logits.max()
    span = max(-float(below.min()), 1.0)
    low, high = 0.0, 1e3
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        sharp = 1 / np.exp(below * middle / span * 20).sum()
        low, high = (middle, high) if sharp < prediction.confidence else (low, middle)
    powers = np.exp(below * low / span * 20)
    made: NDArray[np.float64] = powers / powers.sum()
    return made
