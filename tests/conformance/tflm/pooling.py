"""Pools."""

from collections import defaultdict

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Quantization, input_tensor, output_tensor, run
from .options import FUSED, Activation, Padding, Pair
from .windows import pad_window, window_output


def max_pool(
    x: Int8,
    quantization: Quantization,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    activation: Activation = "none",
) -> Int8:
    """MAX_POOL_2D: (N, H, W, C) -> (N, H', W', C), in and out of one quantization; padding never wins."""
    _check_pool_padding(kernel, padding)
    x, mode = pad_window(x, padding, int(np.iinfo(x.dtype).min))
    return _pool("MAX_POOL_2D", x, quantization, kernel, stride, mode, activation)


def average_pool(
    x: Int8,
    quantization: Quantization,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    count_padding: bool = False,
    activation: Activation = "none",
) -> Int8:
    """AVERAGE_POOL_2D: (N, H, W, C) -> (N, H', W', C), in and out of one quantization.

    TFLite divides by the number of elements inside the image (`count_padding=False`). `count_padding=True`
    (torch's count_include_pad) pads with the zero point first. With explicit padding that is not counted,
    TFLM gets the windows, cut at the border, as batches of equal shape.
    """
    _check_pool_padding(kernel, padding)
    if padding == "same" or count_padding or not any(padding):
        x, mode = pad_window(x, padding, quantization.zero_point)
        return _pool("AVERAGE_POOL_2D", x, quantization, kernel, stride, mode, activation)

    rows = _windows(x.shape[1], kernel[0], stride[0], padding[0], padding[1])
    columns = _windows(x.shape[2], kernel[1], stride[1], padding[2], padding[3])
    by_shape: dict[Pair, list[Pair]] = defaultdict(list)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            by_shape[bottom - top, right - left].append((i, j))
    y = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]), x.dtype)
    for shape, places in by_shape.items():
        cut = np.concatenate([x[:, slice(*rows[i]), slice(*columns[j])] for i, j in places])
        means = _pool("AVERAGE_POOL_2D", cut, quantization, shape, (1, 1), schema.Padding.VALID, activation)
        for (i, j), mean in zip(places, np.split(means[:, 0, 0], len(places)), strict=True):
            y[:, i, j] = mean
    return y


def activation_range(activation: Activation, quantization: Quantization) -> Pair:
    """The integers (lowest, highest) to which TFLM clamps an output with this fused activation.

    Measured, by pooling all values of the dtype with a window of one.

    >>> activation_range("relu6", Quantization(0.03125, -128))
    (-128, 64)
    """
    limits = np.iinfo(quantization.dtype)
    every = np.arange(limits.min, limits.max + 1, dtype=limits.dtype).reshape(1, 1, -1, 1)
    clamped = max_pool(every, quantization, (1, 1), activation=activation)
    return int(clamped.min()), int(clamped.max())


def _check_pool_padding(kernel: Pair, padding: Padding) -> None:
    if padding != "same" and (max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]):
        raise ValueError(f"padding {padding} must be smaller than the kernel {kernel}")


def _windows(size: int, kernel: int, stride: int, before: int, after: int) -> list[Pair]:
    starts = range(-before, size + after - kernel + 1, stride)
    return [(max(start, 0), min(start + kernel, size)) for start in starts]


def _pool(
    operator: str,
    x: Int8,
    quantization: Quantization,
    kernel: Pair,
    stride: Pair,
    mode: int,
    activation: Activation,
) -> Int8:
    height, width = window_output(x.shape[1:3], kernel, stride, (1, 1), mode)
    options = schema.Pool2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        fusedActivationFunction=FUSED[activation],
    )
    output = output_tensor((x.shape[0], height, width, x.shape[3]), quantization)
    return run(operator, options, [input_tensor(x, quantization)], output)
