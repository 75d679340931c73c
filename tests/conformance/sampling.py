"""What the random layers are made of: shapes, windows, data and scales, edge cases often among them."""

import math
from dataclasses import dataclass

import numpy as np

from .model import Float32, Int8, Int16, Int32, Int64, Quantization
from .tflm import Activation, Pair, accumulator_bound, largest_bound


def channels(rng: np.random.Generator) -> int:
    """A number of channels: one, multiples of four, and their neighbours."""
    return int(rng.choice([1, 2, 3, 4, 5, 7, 8, 9, 16, 17]))


def activation(rng: np.random.Generator) -> Activation:
    """A fused activation, none in half of the cases."""
    choices: tuple[Activation, ...] = ("none", "none", "relu", "relu6")
    return choices[rng.integers(len(choices))]


def zero_point(rng: np.random.Generator) -> int:
    """A zero point, in half of the cases an extreme one or 0."""
    return int(rng.choice([-128, 127, 0, *rng.integers(-128, 128, 3)]))


def quantization(rng: np.random.Generator, low: int, high: int, *, exact: bool | None = None) -> Quantization:
    """A zero point and a scale of 2^low to 2^high; an exact one is a power of two, so that results tie.

    Without `exact`, chance makes a quarter of them so.
    """
    if exact is None:
        exact = rng.random() < 0.25
    exponent = float(rng.integers(low, high + 1)) if exact else float(rng.uniform(low, high))
    return Quantization(float(np.float32(2.0**exponent)), zero_point(rng))


def output_quantization(
    rng: np.random.Generator, input_scale: float, *, exact: bool | None = None
) -> Quantization:
    """A zero point and a scale for an output: the input's scale is 2^-12 to 2^4 times as large."""
    factor = quantization(rng, -4, 12, exact=exact)
    return Quantization(float(np.float32(input_scale * factor.scale)), factor.zero_point)


def int8_input(rng: np.random.Generator, shape: tuple[int, ...]) -> Int8:
    """An input: uniform, or in a quarter of the cases extreme values alone."""
    if rng.random() < 0.25:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape, np.int8)


def input_of(dtype: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Int8 | Int16:
    """An input of int8 or int16, as that of :func:`int8_input`."""
    if dtype == "int8":
        return int8_input(rng, shape)
    if rng.random() < 0.25:
        return rng.choice(np.array([-(2**15), 2**15 - 1], np.int16), shape)
    return rng.integers(-(2**15), 2**15, shape, np.int16)


def broadcast(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` (N, H, W, C), in a third of the cases with length 1 along pixels, channels or some axes."""
    samples, height, width, channels = shape
    shapes = [shape] * 6
    shapes += [(samples, 1, 1, channels), (samples, height, width, 1)]
    shapes += [(samples, *(int(rng.choice([1, side])) for side in shape[1:]))]
    return shapes[rng.integers(len(shapes))]


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image of `size` (H, W); at least one place is left for it."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair


def window(rng: np.random.Generator, *, dilated: bool) -> Window:
    """A window, 1-D in a quarter of the cases; one not dilated, for pooling, pads by less than its kernel."""

    style = rng.choice(["none", "even", "uneven"])

    def paddings() -> tuple[int, int]:
        before, after = (int(p) for p in rng.integers(0 if style == "uneven" else 1, 4, 2))
        return {"none": (0, 0), "even": (before, before), "uneven": (before, after)}[style]

    def axis() -> tuple[int, int, int, int, int, int]:
        size = int(rng.choice([1, *rng.integers(2, 10, 5)]))
        kernel = int(rng.integers(1, 6))
        dilation = int(rng.choice([1, 1, 2, 3])) if dilated else 1
        most = 3 if dilated else kernel - 1
        before, after = (min(int(p), most) for p in paddings())
        missing = max(0, (kernel - 1) * dilation + 1 - size - before - after)
        if not dilated:
            before += min(missing, most - before)
            missing = max(0, kernel - size - before - after)
        return size, kernel, int(rng.integers(1, 5)), before, after + missing, dilation

    rows = (1, 1, 1, 0, 0, 1) if rng.random() < 0.25 else axis()
    columns = axis()
    return Window(
        size=(rows[0], columns[0]),
        kernel=(rows[1], columns[1]),
        stride=(rows[2], columns[2]),
        padding=(rows[3], rows[4], columns[3], columns[4]),
        dilation=(rows[5], columns[5]),
    )


@dataclass(frozen=True)
class Weighted:
    """The weights, output channels first, the bias and the scales of an operator."""

    weights: Int8
    bias: Int32 | Int64
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization


def weighted(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "int8") -> Weighted:
    """Weights of this shape (output channels first), bias and scales of a layer of int8 or int16.

    The bias is 0, moderate, as extreme as the accumulators allow, or a tie: within two of an accumulator
    that lies half way between two outputs, with no weights beside it in half of the channels, so that the
    outputs there show the rounding. The real multiplier s_x * s_w / s_y spreads the accumulators over int8,
    or is small (with a bias to match), above 1, so large that most outputs saturate, and at times a power
    of two.
    """
    # Steps of an int16 in a step of an int8 of the same range.
    finer = 1 if dtype == "int8" else 2**8
    biases = str(rng.choice(["zero", "moderate", "extreme", "tie", "tie"]))
    exact = bool(rng.random() < (0.5 if biases == "tie" else 0.1))
    x_quantization, y_quantization = (quantization(rng, -7, 0, exact=exact) for _ in range(2))
    if dtype != "int8":
        x_quantization, y_quantization = (
            Quantization(of.scale, 0, dtype) for of in (x_quantization, y_quantization)
        )

    weights = weights_of(rng, shape)
    if biases == "tie":
        weights[rng.random(len(weights)) < 0.5] = 0
    # 74 is the standard deviation of uniform int8 data; the steps of int16 cancel out.
    spread = 74 * math.sqrt(max(1.0, np.square(weights.astype(np.float64)).sum() / len(weights)))
    fit = (math.log2(64 / spread) - 2, math.log2(64 / spread) + 1)
    extreme = (-27, -23) if dtype == "int8" else (-32, -29)
    small = {"zero": fit, "moderate": (-32, -14), "extreme": extreme, "tie": (-24, -6)}[biases]
    shares = [0.6, 0.2, 0.1, 0.1] if biases in ("zero", "moderate") else [0.1, 0.7, 0.1, 0.1]
    low, high = (fit, small, (0, 6), (fit[1], fit[1] + 6))[rng.choice(4, p=shares)]

    per_channel = rng.random() < 0.75
    exponents = rng.uniform(low, high, len(weights) if per_channel else 1)
    if exact:
        exponents = np.round(exponents)
    if dtype != "int8":
        # TFLM multiplies all sums to int32, by less than 2^7.
        most = accumulator_bound(weights, np.zeros(len(weights), np.int64), dtype).max()
        exponents = np.minimum(exponents, min(np.floor(30 - np.log2(most + 1.0)), 6.5))
    if per_channel and rng.random() < 0.15:
        # A dead channel: TFLM takes multipliers below about 2^-32 for 0.
        exponents[rng.integers(len(exponents))] = -45
    scales = (2.0**exponents * y_quantization.scale / x_quantization.scale).astype(np.float32)

    real = x_quantization.scale * scales.astype(np.float64) / y_quantization.scale
    bias = np.zeros(len(weights), np.int32 if dtype == "int8" else np.int64)
    least = accumulator_bound(weights, bias, dtype).tolist()
    for channel, multiplier in enumerate(np.broadcast_to(real, len(weights)).tolist()):
        room = largest_bound(multiplier, dtype) - least[channel]
        if biases == "moderate":
            bias[channel] = int(rng.uniform(-1, 1) * min(room, 128 * finer / multiplier))
        elif biases == "extreme":
            bias[channel] = room * int(rng.choice([-1, 1]))
        elif biases == "tie":
            halves = int(rng.integers(-128 * finer, 128 * finer)) + 0.5
            tie = round(halves / multiplier) + int(rng.integers(-2, 3))
            bias[channel] = max(-room, min(tie, room))
    return Weighted(weights, bias, x_quantization, scales, y_quantization)


def weights_of(rng: np.random.Generator, shape: tuple[int, ...]) -> Int8:
    """Uniform, or in a quarter of the cases -127, 0 and 127 alone."""
    if rng.random() < 0.25:
        return rng.choice(np.array([-127, 0, 127], np.int8), shape)
    return rng.integers(-127, 128, shape, np.int8)
