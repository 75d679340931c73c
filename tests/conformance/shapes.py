"""Random layers of the shapes that kernels are made for: 3x3 and 1x1 windows, strides 1 and 2, whole and
partial blocks of channels. Their numbers are those of `sampling`, with extreme multipliers and biases.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.ir.layer import Layer
from torch_nano.ops._window import Padding, Pair
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.conv_transpose2d import ConvTranspose2d
from torch_nano.ops.depthwise_conv2d import DepthwiseConv2d
from torch_nano.ops.fully_connected import FullyConnected
from torch_nano.ops.max_pool2d import MaxPool2d

from .sampling import Weighted, input_of, weighted

#: Most multiply-accumulates of a layer: more would only take time.
_MOST_MACS = 400_000
_KERNELS: tuple[Pair, ...] = (
    *[(3, 3)] * 5,
    *[(1, 1)] * 3,
    *[(5, 5), (2, 2), (3, 1), (1, 2), (1, 3), (1, 5), (1, 9)],
)
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 20, 24, 32, 33)
_CLAMPS: tuple[dict[str, float], ...] = ({}, {}, {"clamp_low": 0.0}, {"clamp_low": 0.0, "clamp_high": 6.0})


def _window(rng: np.random.Generator) -> tuple[Pair, Pair, Pair, Padding, Pair]:
    """Size, kernel, stride, padding and dilation, with at least one output."""
    while True:
        kernel = _KERNELS[rng.integers(len(_KERNELS))]
        flat = kernel[0] == 1 and rng.random() < 0.5
        size = (1 if flat else int(rng.integers(1, 19)), int(rng.integers(1, 40 if flat else 19)))
        step = int(rng.choice([1, 1, 1, 1, 2, 3]))
        stride = (step, step) if rng.random() < 0.9 else (int(rng.integers(1, 4)), step)
        wide = int(rng.choice([1, 1, 1, 1, 1, 1, 2, 3]))
        dilation = (1 if flat else wide, wide)
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        most = [0, 0] if (style := rng.random()) < 0.25 else reach
        before = [int(rng.integers(0, m + 1)) if style > 0.75 else m // 2 for m in most]
        after = [int(rng.integers(0, m + 1)) if style > 0.75 else m - m // 2 for m in most]
        if all(s + b + a > r for s, b, a, r in zip(size, before, after, reach, strict=True)):
            return size, kernel, stride, (before[0], after[0], before[1], after[1]), dilation


def _quantizations(numbers: Weighted, dtype: str) -> tuple[Quantization, Quantization]:
    of_x, of_y = (
        Quantization(of.scale, of.zero_point, dtype)
        for of in (numbers.x_quantization, numbers.y_quantization)
    )
    return of_x, of_y


def _with_weights(
    rng: np.random.Generator,
    operator: Conv2d | ConvTranspose2d | DepthwiseConv2d | FullyConnected,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
) -> Layer:
    """A layer with weights; `x_shape` with the channels first, without batch."""
    numbers = weighted(rng, weight_shape, dtype)
    of_x, of_y = _quantizations(numbers, dtype)
    tensors = {
        "weights": torch.from_numpy(numbers.weights),
        "bias": torch.from_numpy(numbers.bias),
        "weight_scales": torch.from_numpy(
            np.broadcast_to(numbers.weight_scales, len(numbers.weights)).copy()
        ),
    }
    x = torch.from_numpy(input_of(dtype, rng, (int(rng.choice([1, 1, 2])), *x_shape)))
    return Layer(operator, [x], tensors=tensors, input_quantizations=[of_x], output_quantizations=[of_y])


def _conv2d(rng: np.random.Generator, dtype: str) -> Layer:
    while True:
        size, kernel, stride, padding, dilation = _window(rng)
        groups = int(rng.choice([1, 1, 1, 1, 2, 3, 4, 8]))
        inputs, outputs = (int(rng.choice(_CHANNELS[: 16 if groups == 1 else 6])) for _ in range(2))
        if groups * size[0] * size[1] * kernel[0] * kernel[1] * inputs * outputs <= _MOST_MACS:
            break
    if groups == 1 and rng.random() < 0.1:
        # One output pixel, with all inputs under its window.
        size, stride, dilation = (
            (int(rng.integers(1, kernel[0] + 1)), int(rng.integers(1, kernel[1] + 1))),
            (1, 1),
            (1, 1),
        )
        room = [k - s for k, s in zip(kernel, size, strict=True)]
        before = [int(rng.integers(0, r + 1)) for r in room]
        padding = (before[0], room[0] - before[0], before[1], room[1] - before[1])
    if groups == 8 and rng.random() < 0.7:
        inputs = 1  # A depthwise convolution with a multiplier.
    operator = Conv2d(kernel, stride, padding, dilation, groups, **_CLAMPS[rng.integers(len(_CLAMPS))])
    return _with_weights(rng, operator, (groups * inputs, *size), (groups * outputs, *kernel, inputs), dtype)


def _conv_transpose2d(rng: np.random.Generator, dtype: str) -> Layer:
    """Depthwise, or in groups of two channels."""
    while True:
        size, kernel, stride, padding, dilation = _window(rng)
        full = [
            (s - 1) * step + (k - 1) * d + 1
            for s, step, k, d in zip(size, stride, kernel, dilation, strict=True)
        ]
        if full[0] > sum(padding[:2]) and full[1] > sum(padding[2:]):
            break
    groups, inputs = int(rng.choice(_CHANNELS[:10])), int(rng.choice([1, 1, 1, 2]))
    operator = ConvTranspose2d(
        kernel, stride, padding, dilation, groups, **_CLAMPS[rng.integers(len(_CLAMPS))]
    )
    channels = groups * inputs
    return _with_weights(rng, operator, (channels, *size), (channels, *kernel, inputs), dtype)


def _depthwise_conv2d(rng: np.random.Generator, dtype: str) -> Layer:
    size, kernel, stride, padding, dilation = _window(rng)
    channels = int(rng.choice(_CHANNELS))
    operator = DepthwiseConv2d(kernel, stride, padding, dilation, **_CLAMPS[rng.integers(len(_CLAMPS))])
    return _with_weights(rng, operator, (channels, *size), (channels, *kernel), dtype)


def _fully_connected(rng: np.random.Generator, dtype: str) -> Layer:
    inputs = 8 * int(rng.integers(1, 33)) if rng.random() < 0.5 else int(rng.integers(1, 260))
    outputs = 16 * int(rng.integers(1, 4)) if rng.random() < 0.5 else int(rng.integers(1, 50))
    operator = FullyConnected(**_CLAMPS[rng.integers(len(_CLAMPS))])
    return _with_weights(rng, operator, (inputs,), (outputs, inputs), dtype)


def _pool(kind: type[MaxPool2d] | type[AveragePool2d]) -> Callable[[np.random.Generator, str], Layer]:
    def make(rng: np.random.Generator, dtype: str) -> Layer:
        while True:
            size, kernel, stride, padding, dilation = _window(rng)
            # torch pads pools by half of the kernel at most; a window of padding alone has no maximum.
            if dilation == (1, 1) and all(
                p <= k // 2 for p, k in zip(padding, np.repeat(kernel, 2), strict=True)
            ):
                break
        of = Quantization(0.05, 0 if dtype == "int16" else int(rng.integers(-128, 128)), dtype)
        shape = (int(rng.choice([1, 1, 2])), int(rng.choice(_CHANNELS)), *size)
        x = torch.from_numpy(input_of(dtype, rng, shape))
        return Layer(kind(kernel, stride, padding), [x], input_quantizations=[of], output_quantizations=[of])

    return make


#: By operator.
SHAPES: Mapping[str, Callable[[np.random.Generator, str], Layer]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "fully_connected": _fully_connected,
    "max_pool2d": _pool(MaxPool2d),
    "average_pool2d": _pool(AveragePool2d),
}


def shaped(operator: str, dtype: str, seed: int, index: int) -> Layer:
    """The layer number `index` of this seed: with its inputs."""
    rng = np.random.default_rng([*operator.encode(), *dtype.encode(), seed, index])
    return SHAPES[operator](rng, dtype)
