"""`LayersHead` in plain integers: the oracle that nano-core's implementation must equal byte for byte.

Written from nano-core's text (`train::LayersHead`). Every integer intermediate is computed in int64 and
asserted to fit the width the device uses.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .sgd_head import (
    HALVE_ABOVE,
    INITIAL_MAX,
    MAX_UPDATE_SHIFT,
    SATURATE,
    VALUE_STEPS,
    XORSHIFT_SEED,
    ZERO_HEAD_STEPS,
    IntArray,
    Xorshift32,
    bias_input,
    errors,
    fits,
    power_of_two_ratio,
    round_half_away,
    visits,
)

NEGLIGIBLE, BACKWARD_SHIFT = 128, 8


@dataclass
class Layer:
    """A trained layer: real weights [outputs, inputs] and what follows it."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    positions: int = 1
    clamp: tuple[float | None, float | None] = (None, None)
    range: tuple[float, float] = (0.0, 0.0)
    #: In integers, made by LayersHead.
    stored: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    exponent: int = 0
    largest_exponent: int = 0
    bias_input: int = 0
    rate: tuple[int, int] = (0, 0)
    shift: int = 0
    zero_point: int = 0
    ends: tuple[int, int] = (-128, 127)


class LayersHead:
    """SGD on layers after int8 features."""

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        scale: float,
        zero_point: int,
        lr: float,
        loss: str = "cross_entropy",
        halve_every: int = 0,
        class_weights: Sequence[float] = (),
        frozen: Sequence[int] = (),
    ) -> None:
        self.layers = [replace(layer) for layer in layers]
        self.loss, self.halve_every, self.frozen = loss, halve_every, list(frozen)
        weights = np.float64(class_weights or [1] * len(layers[-1].weight))
        self.class_weights = np.floor(2**15 * (weights / weights.max()) + 0.5).astype(np.int64)
        self.feature_zero_point = zero_point
        self.random = Xorshift32(XORSHIFT_SEED)
        scales = []
        for layer in self.layers:
            layer.bias_input = bias_input(scale)
            real = np.column_stack(
                [layer.weight.astype(np.float64), layer.bias.astype(np.float64) / (layer.bias_input * scale)]
            )
            largest = float(np.abs(real).max())
            step = largest * 256 / INITIAL_MAX if largest else 1 / (ZERO_HEAD_STEPS * 255 * scale)
            layer.stored = round_half_away(real * 256 / step) + 128
            scales.append((scale, step))
            if layer is self.layers[-1]:
                break
            low, high = layer.clamp
            from_zero = low == 0
            layer.zero_point = -128 if from_zero else 0
            seen = layer.range[1] if from_zero else max(abs(layer.range[0]), abs(layer.range[1]))
            room = min(max(math.inf if high is None else high, seen), 2 * seen)
            scale *= step
            while scale * (255 if from_zero else 127) < room and layer.shift < MAX_UPDATE_SHIFT:
                scale, layer.shift = 2 * scale, layer.shift + 1
            layer.ends = (self._end(low, scale, layer, -128), self._end(high, scale, layer, 127))
        squared = loss == "squared"
        one = float(VALUE_STEPS if squared else 2**15)
        steps = VALUE_STEPS if squared else math.log2(math.e) * 256
        self.softmax = power_of_two_ratio(scales[-1][0] * scales[-1][1] * steps, bits=16)
        for layer, (input_scale, step) in zip(self.layers[::-1], scales[::-1], strict=True):
            multiplier, shift = power_of_two_ratio(lr * input_scale * 256 / (step * one), bits=15)
            layer.rate = multiplier, shift - 15
            if not 1 <= layer.rate[1] <= MAX_UPDATE_SHIFT:
                raise ValueError(f"learning rate {lr}: shift {layer.rate[1]}")
            forward = self.softmax[1] if layer is self.layers[-1] else layer.shift
            backward = MAX_UPDATE_SHIFT if layer is self.layers[0] else BACKWARD_SHIFT
            layer.largest_exponent = min(forward, backward, MAX_UPDATE_SHIFT - layer.rate[1])
            one /= step * 2**BACKWARD_SHIFT

    @staticmethod
    def _end(bound: float | None, scale: float, layer: Layer, default: int) -> int:
        if bound is None:
            return default
        steps = int(round_half_away(np.array(min(max(bound / scale, -512.0), 512.0))))
        return min(max(steps + layer.zero_point, -128), 127)

    def forward(self, q: npt.ArrayLike) -> tuple[list[IntArray], list[IntArray], IntArray]:
        """Of each layer its inputs [positions, inputs + 1]; all outputs q but the last's; the last's sums."""
        values = fits(np.asarray(q), 8)
        zero_point, inputs, outputs = self.feature_zero_point, [], []
        for layer in self.layers:
            x = values.reshape(layer.positions, -1) - zero_point
            x = np.column_stack([x, np.full(len(x), layer.bias_input)])
            inputs.append(x)
            weights = fits(layer.stored >> 8, 8)
            fits(np.abs(x) @ np.abs(weights).T, 32)
            sums = fits(x @ weights.T, 32).reshape(-1)
            if layer is not self.layers[-1]:
                shift = layer.shift - layer.exponent
                sums = (fits(sums + (1 << shift >> 1), 32) >> shift) + layer.zero_point
                values = sums.clip(*layer.ends)
                outputs.append(values)
                zero_point = layer.zero_point
        return inputs, outputs, sums

    def scores(self, q: npt.ArrayLike) -> IntArray:
        """The last layer's sums."""
        return self.forward(q)[2]

    def errors(self, sums: IntArray, label: int) -> IntArray:
        """The last layer's errors, without the negligible ones, weighted."""
        multiplier, shift = self.softmax
        e = errors(self.loss, sums, label, multiplier, shift - self.layers[-1].exponent)
        weights = self.class_weights[label] if self.loss == "cross_entropy" else self.class_weights
        weighted = fits(e * weights + 2**14, 32) >> 15
        return np.where(np.abs(e) <= (1 if self.loss == "squared" else NEGLIGIBLE), 0, weighted)

    def step(self, q: npt.ArrayLike, label: int, halvings: int = 0) -> None:
        """One SGD step on one sample."""
        inputs, outputs, sums = self.forward(q)
        error = self.errors(sums, label)
        if not error.any():
            return
        back = [error]
        for index in range(len(self.layers) - 1, 0, -1):
            layer, below = self.layers[index], self.layers[index - 1]
            weights = (layer.stored >> 8)[:, :-1]
            parts = back[0].reshape(layer.positions, -1)
            fits(np.abs(parts) @ np.abs(weights), 32)
            shift = BACKWARD_SHIFT - layer.exponent
            sums = fits((parts @ weights).reshape(-1) + (1 << shift >> 1), 32) >> shift
            limit = min(2**23 // len(below.weight), 2**15 - 1)
            flat = (outputs[index - 1] == below.ends[0]) | (outputs[index - 1] == below.ends[1])
            back.insert(0, np.where(flat, 0, sums.clip(-limit, limit)))
        back[-1][self.frozen] = 0
        for layer, x, error in zip(self.layers, inputs, back, strict=True):
            multiplier, shift = layer.rate
            shift = min(shift + layer.exponent + halvings, MAX_UPDATE_SHIFT)
            gradients = (fits(error * multiplier + 2**14, 32) >> 15).reshape(layer.positions, -1)
            v = layer.stored - 128
            for g, row in zip(gradients, x, strict=True):
                v = (v - (fits(np.outer(g, row) + (1 << shift - 1), 32) >> shift)).clip(-SATURATE, SATURATE)
            if np.abs(v).max() > HALVE_ABOVE and layer.exponent < layer.largest_exponent:
                v >>= 1
                layer.exponent += 1
            layer.stored = fits(v + 128, 16)

    def train(self, features: Sequence[npt.ArrayLike], labels: Sequence[int], epochs: int) -> None:
        """`epochs` passes over samples."""
        for epoch in range(epochs):
            for index in visits(self.random, len(labels)):
                self.step(
                    features[index], labels[index], epoch // self.halve_every if self.halve_every else 0
                )

    def state(self) -> bytes:
        """As the device stores it."""
        words = struct.pack(
            f"<{len(self.layers) + 1}I", *(layer.exponent for layer in self.layers), self.random.state
        )
        return words + b"".join(layer.stored.astype("<i2").tobytes() for layer in self.layers)
