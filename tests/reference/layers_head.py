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
    fades,
    fits,
    power_of_two_ratio,
    round_half_away,
    visits,
)

NEGLIGIBLE, BACKWARD_SHIFT = 128, 8


Shape = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass
class Layer:
    """A layer: real weights [outputs, inputs] (depthwise: [channels, taps]) and what follows it."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    operation: str = "convolution"
    #: Height, width, channels; made of the weight's by :func:`dense`.
    input: Shape = (0, 0, 0)
    output: Shape = (0, 0, 0)
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    #: Of an addition: 0 for the features, else 1 + the number of the layer.
    other: int = 0
    learns: bool = True
    clamp: tuple[float | None, float | None] = (None, None)
    range: tuple[float, float] = (0.0, 0.0)
    #: In integers, made by LayersHead.
    stored: IntArray = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    exponent: int = 0
    largest_exponent: int = 0
    bias_input: int = 0
    rate: tuple[int, int] = (0, 0)
    shift: int = 0
    zero_point: int = 0
    ends: tuple[int, int] = (-128, 127)
    terms: tuple[int, int] = (0, 0)
    skip: int = 0

    @property
    def has_weights(self) -> bool:
        """Whether it can learn."""
        return self.operation in ("convolution", "depthwise")

    @property
    def positions(self) -> int:
        """Number of pixels of the output."""
        return self.output[0] * self.output[1]

    @property
    def taps(self) -> int:
        """Number of pixels under the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def limit(self) -> int:
        """The largest error of an output."""
        readers = min(self.taps, self.positions) * (self.output[2] if self.operation == "convolution" else 1)
        most = min(2**23 // readers, 2**22 // self.positions) if self.has_weights else 2**15
        return min(most, 2**15 - 1)

    def pixels(self) -> IntArray:
        """The input's pixel under each tap of each position, [positions, taps]; after the last is padding."""
        height, width, _ = self.input
        of = np.full((self.positions, self.taps), height * width)
        for position, tap in np.ndindex(of.shape):
            y, x = divmod(position, self.output[1])
            row, column = divmod(tap, self.kernel[1])
            y, x = y * self.stride[0] - self.padding[0] + row, x * self.stride[1] - self.padding[1] + column
            if 0 <= y < height and 0 <= x < width:
                of[position, tap] = y * width + x
        return of


def dense(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], positions: int = 1) -> Layer:
    """A fully connected layer at each of some positions."""
    outputs, inputs = weight.shape
    return Layer(weight, bias, input=(positions, 1, inputs), output=(positions, 1, outputs))


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
        half_life: int = 0,
    ) -> None:
        self.half_life = half_life or None
        self.layers = [replace(layer) for layer in layers]
        self.loss, self.halve_every, self.frozen = loss, halve_every, list(frozen)
        weights = np.float64(class_weights or [1] * len(layers[-1].weight))
        self.class_weights = np.floor(2**15 * (weights / weights.max()) + 0.5).astype(np.int64)
        self.feature_zero_point = zero_point
        self.random = Xorshift32(XORSHIFT_SEED)
        #: Of each layer the scale of its inputs and of its weights.
        scales: list[tuple[float, float]] = []
        outputs = [scale]
        has_sum = any(layer.operation == "add" for layer in self.layers)
        for layer in self.layers:
            scale, step = outputs[-1], 1.0
            if layer.operation == "average_pool":
                step = 1 / layer.taps
            elif layer.operation == "add":
                other = outputs[layer.other]
                base = min(scale, other)
                layer.terms = (power_of_two(scale / base), power_of_two(other / base))
                scale = base
            elif layer.has_weights:
                step = self._quantize(layer, scale, has_sum)
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
            outputs.append(scale)
        squared = loss == "squared"
        one = float(VALUE_STEPS if squared else 2**15)
        steps = VALUE_STEPS if squared else math.log2(math.e) * 256
        self.softmax = power_of_two_ratio(scales[-1][0] * scales[-1][1] * steps, bits=16)
        ones = []
        for layer, (input_scale, step) in zip(self.layers[::-1], scales[::-1], strict=True):
            ones.insert(0, one)
            if layer.learns and layer.has_weights:
                multiplier, shift = power_of_two_ratio(lr * input_scale * 256 / (step * one), bits=15)
                layer.rate = multiplier, shift - 15
                if not 1 <= layer.rate[1] <= MAX_UPDATE_SHIFT:
                    raise ValueError(f"learning rate {lr}: shift {layer.rate[1]}")
                forward = self.softmax[1] if layer is self.layers[-1] else layer.shift
                backward = MAX_UPDATE_SHIFT if layer is self.layers[0] else BACKWARD_SHIFT
                layer.largest_exponent = min(forward, backward, MAX_UPDATE_SHIFT - layer.rate[1])
            one /= step * (2**BACKWARD_SHIFT if layer.has_weights else 1)
        for layer, own in zip(self.layers, ones, strict=True):
            if layer.operation == "add" and layer.other:
                layer.skip = power_of_two(own / ones[layer.other - 1])

    @staticmethod
    def _quantize(layer: Layer, scale: float, power: bool) -> float:
        """Sets the stored weights; returns their scale."""
        layer.bias_input = bias_input(scale)
        real = np.column_stack(
            [layer.weight.astype(np.float64), layer.bias.astype(np.float64) / (layer.bias_input * scale)]
        )
        largest = float(np.abs(real).max())
        step = largest * 256 / INITIAL_MAX if largest else 1 / (ZERO_HEAD_STEPS * 255 * scale)
        if power:
            mantissa, exponent = math.frexp(step)
            step = math.ldexp(1.0, exponent - (mantissa == 0.5))
        layer.stored = round_half_away(real * 256 / step) + 128
        return step

    @staticmethod
    def _end(bound: float | None, scale: float, layer: Layer, default: int) -> int:
        if bound is None:
            return default
        steps = int(round_half_away(np.array(min(max(bound / scale, -512.0), 512.0))))
        return min(max(steps + layer.zero_point, -128), 127)

    def forward(self, q: npt.ArrayLike) -> tuple[list[IntArray], list[IntArray], IntArray]:
        """Of each layer its inputs [positions, taps, channels]; hidden outputs q; the last layer's sums."""
        results = [(fits(np.asarray(q), 8), self.feature_zero_point)]
        inputs = []
        for layer in self.layers:
            values, zero_point = results[-1]
            x = np.vstack(
                [values.reshape(-1, layer.input[2]) - zero_point, np.zeros((1, layer.input[2]), np.int64)]
            )
            windows = x[layer.pixels()]
            inputs.append(windows)
            if layer.operation == "add":
                other, its_zero_point = results[layer.other]
                own, skipped = layer.terms
                sums = ((values - zero_point) << own) + ((other - its_zero_point) << skipped)
            else:
                sums = self._sums(layer, windows).reshape(-1)
            fits(sums, 32)
            if layer is not self.layers[-1]:
                shift = layer.shift - layer.exponent
                sums = (fits(sums + (1 << shift >> 1), 32) >> shift) + layer.zero_point
                results.append((sums.clip(*layer.ends), layer.zero_point))
        return inputs, [values for values, _ in results[1:]], sums

    @staticmethod
    def _sums(layer: Layer, windows: IntArray) -> IntArray:
        """[positions, outputs]"""
        if layer.operation == "average_pool":
            return windows.sum(1)
        if layer.operation == "max_pool":
            inside = layer.pixels() < layer.input[0] * layer.input[1]
            return np.where(inside[:, :, None], windows, -(2**31)).max(1)
        weights = fits(layer.stored >> 8, 8)
        x = with_bias(layer, windows)
        if layer.operation == "depthwise":
            fits((np.abs(x) * np.abs(weights.T)).sum(1), 32)
            return (x * weights.T).sum(1)
        fits(np.abs(x) @ np.abs(weights).T, 32)
        return x @ weights.T

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
        back: list[IntArray] = [error]
        for index in range(len(self.layers) - 1, 0, -1):
            layer, below = self.layers[index], self.layers[index - 1]
            own = self._backward(layer, inputs[index], back[0]).reshape(-1)
            if layer.has_weights:
                shift = BACKWARD_SHIFT - layer.exponent
                own = fits(own + (1 << shift >> 1), 32) >> shift
            own = own.clip(-below.limit, below.limit)
            for distance, above in enumerate(self.layers[index:]):
                if above.operation == "add" and above.other == index:
                    left, right = max(-above.skip, 0), max(above.skip, 0)
                    skipped = fits((back[distance] << left) + (1 << right >> 1), 32) >> right
                    own = (own + skipped).clip(-below.limit, below.limit)
            flat = (outputs[index - 1] == below.ends[0]) | (outputs[index - 1] == below.ends[1])
            back.insert(0, own if "pool" in below.operation else np.where(flat, 0, own))
        back[-1][self.frozen] = 0
        for layer, x, error in zip(self.layers, inputs, back, strict=True):
            if not (layer.learns and layer.has_weights):
                continue
            multiplier, shift = layer.rate
            shift = min(shift + layer.exponent + halvings, MAX_UPDATE_SHIFT)
            gradients = (fits(error * multiplier + 2**14, 32) >> 15).reshape(layer.positions, -1)
            x = with_bias(layer, x)
            depthwise = layer.operation == "depthwise"
            if depthwise:
                fits(np.abs(x * gradients[:, None, :]).sum(0) + (1 << shift - 1), 32)
                totals = (x * gradients[:, None, :]).sum(0).T
            else:
                fits(np.abs(gradients).T @ np.abs(x) + (1 << shift - 1), 32)
                totals = gradients.T @ x
            v = (layer.stored - 128 - (fits(totals + (1 << shift - 1), 32) >> shift)).clip(
                -SATURATE, SATURATE
            )
            if np.abs(v).max() > HALVE_ABOVE and layer.exponent < layer.largest_exponent:
                v >>= 1
                layer.exponent += 1
            layer.stored = fits(v + 128, 16)

    @staticmethod
    def _backward(layer: Layer, windows: IntArray, errors: IntArray) -> IntArray:
        """The errors of the inputs, [pixels, channels], before they are rounded."""
        if layer.operation == "add":
            return errors
        parts = errors.reshape(layer.positions, -1)
        lower = np.zeros((layer.input[0] * layer.input[1] + 1, layer.input[2]), np.int64)
        pixels = layer.pixels()
        if layer.operation == "max_pool":
            inside = pixels < len(lower) - 1
            first = np.where(inside[:, :, None], windows, -(2**31)).argmax(1)
            for position, channel in np.ndindex(parts.shape):
                lower[pixels[position, first[position, channel]], channel] += parts[position, channel]
            return fits(lower[:-1], 32)
        weights = (layer.stored >> 8)[:, :-1]
        if layer.operation == "average_pool":
            products = np.repeat(parts[:, None, :], layer.taps, 1)
        elif layer.operation == "depthwise":
            products = parts[:, None, :] * weights.T
        else:
            fits(np.abs(parts) @ np.abs(weights), 32)
            products = (parts @ weights).reshape(*pixels.shape, -1)
        np.add.at(lower, pixels, products)
        return fits(lower[:-1], 32)

    def train(self, features: Sequence[npt.ArrayLike], labels: Sequence[int], epochs: int) -> None:
        """`epochs` passes over samples."""
        for epoch in range(epochs):
            for index in visits(self.random, len(labels)):
                if fades(len(labels) - 1 - index, epoch, self.half_life):
                    continue
                self.step(
                    features[index], labels[index], epoch // self.halve_every if self.halve_every else 0
                )

    def state(self) -> bytes:
        """As the device stores it."""
        words = struct.pack(
            f"<{len(self.layers) + 1}I", *(layer.exponent for layer in self.layers), self.random.state
        )
        learning = [layer for layer in self.layers if layer.learns and layer.has_weights]
        return words + b"".join(layer.stored.astype("<i2").tobytes() for layer in learning)


def with_bias(layer: Layer, windows: IntArray) -> IntArray:
    """Inputs with the bias's: [positions, inputs + 1], depthwise [positions, taps + 1, channels]."""
    positions, _, channels = windows.shape
    if layer.operation == "depthwise":
        return np.concatenate([windows, np.full((positions, 1, channels), layer.bias_input)], 1)
    return np.column_stack([windows.reshape(positions, -1), np.full(positions, layer.bias_input)])


def power_of_two(ratio: float) -> int:
    """The exponent of a power of two.

    Raises:
        ValueError: the ratio is another number.
    """
    mantissa, exponent = math.frexp(ratio)
    if mantissa != 0.5:
        raise ValueError(f"{ratio} is no power of two")
    return exponent - 1
