"""The oracle of the conformance tests: single int8 operators run by TensorFlow Lite Micro (TFLM).

Every function runs one operator with TFLM's reference kernels and returns the int8 output. Nothing is
computed here: numpy pads and cuts, TFLM does the arithmetic.

Layouts are TFLite's: activations NHWC, convolution weights OHWI, depthwise weights 1HWO, fully connected
weights (out, in). 1-D data is 2-D with height 1. Where TFLM would abort the process, or overflow (undefined
behaviour of C++), a `ValueError` is raised instead: there the oracle has nothing to say.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from .model import (
    Float32,
    Int8,
    Int32,
    Quantization,
    bias_tensor,
    input_tensor,
    numbers_tensor,
    output_tensor,
    run,
    shape_tensor,
    state_tensor,
    weight_tensor,
)

Activation = Literal["none", "relu", "relu6"]
UnaryFunction = Literal["elu", "leaky_relu", "logistic", "tanh", "hard_swish"]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int] | Literal["same"]
"""(top, bottom, left, right), or TFLite's own SAME."""


SOFTMAX_OUTPUT = Quantization(1 / 256, -128)
"""The only output quantization that TFLM's softmax allows."""
LOG_SOFTMAX_OUTPUT = Quantization(1 / 16, 127)
"""The only output quantization that TFLM's logarithm of softmax allows."""
UNARY_OUTPUT: dict[str, Quantization] = {
    "logistic": Quantization(1 / 256, -128),
    "tanh": Quantization(1 / 128, 0),
}
"""The output quantization of the unary functions that do not take one."""

_FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


def accumulator_bound(weights: Int8, bias: Int32) -> npt.NDArray[np.int64]:
    """Largest |accumulator| per output channel, |bias| + 255 * sum|w|, for any int8 input and zero point.

    `weights` has the output channels first. Shape of the result: (out,).
    """
    magnitude = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    bound: npt.NDArray[np.int64] = np.abs(bias.astype(np.int64)) + 255 * magnitude
    return bound


def largest_bound(multiplier: float) -> int:
    """The largest |accumulator| that TFLM requantizes by this real multiplier without overflow.

    For a multiplier of 1 or more TFLM shifts the accumulator left first; that shift, and the addition of
    the zero point, wrap silently (signed overflow). 256 leaves room for the zero point.
    """
    return 2**31 - 256 >> max(0, math.frexp(multiplier)[1])


def conv2d(
    x: Int8,
    weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    activation: Activation = "none",
) -> Int8:
    """CONV_2D: x (N, H, W, C), weights (O, KH, KW, C / groups), bias (O,) -> (N, H', W', O).

    `weight_scales` is (O,) or (1,). The number of groups follows from the shapes, as in TFLite. Explicit
    padding is done here, with the zero point, before a VALID convolution; "same" is TFLM's own.
    """
    if x.shape[3] % weights.shape[3] or weights.shape[0] % (x.shape[3] // weights.shape[3]):
        raise ValueError(f"no number of groups fits input {x.shape} and weights {weights.shape}")
    _check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    x, mode = _pad(x, padding, x_quantization.zero_point)
    height, width = _window_output(x.shape[1:3], weights.shape[1:3], stride, dilation, mode)
    options = schema.Conv2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=_FUSED[activation],
    )
    return run(
        "CONV_2D",
        options,
        [
            input_tensor(x, x_quantization),
            weight_tensor(weights, weight_scales, 0),
            bias_tensor(bias, x_quantization, weight_scales),
        ],
        output_tensor((x.shape[0], height, width, weights.shape[0]), y_quantization),
    )


def conv_transpose2d(
    x: Int8,
    weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    stride: Pair = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    activation: Activation = "none",
) -> Int8:
    """TRANSPOSE_CONV: x (N, H, W, C), weights (O, KH, KW, C), bias (O,) -> (N, H', W', O).

    Scales as in `conv2d`. The whole output is computed, without padding; `padding` is cut off here.
    """
    _check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    height, width = ((x.shape[1 + axis] - 1) * stride[axis] + weights.shape[1 + axis] for axis in range(2))
    shape = (x.shape[0], height, width, weights.shape[0])
    options = schema.TransposeConvOptionsT(
        padding=schema.Padding.VALID,
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=_FUSED[activation],
    )
    y = run(
        "TRANSPOSE_CONV",
        options,
        [
            shape_tensor(shape),
            weight_tensor(weights, weight_scales, 0),
            input_tensor(x, x_quantization),
            bias_tensor(bias, x_quantization, weight_scales),
        ],
        output_tensor(shape, y_quantization),
    )
    top, bottom, left, right = padding
    return y[:, top : height - bottom, left : width - right]


def depthwise_conv2d(
    x: Int8,
    weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    activation: Activation = "none",
) -> Int8:
    """DEPTHWISE_CONV_2D: x (N, H, W, C), weights (1, KH, KW, C * m), bias (C * m,) -> (N, H', W', C * m).

    Output channel c * m + j reads input channel c, m being the depth multiplier. Scales and padding as in
    `conv2d`.
    """
    channels = weights.shape[3]
    if weights.shape[0] != 1 or channels % x.shape[3]:
        raise ValueError(f"no depth multiplier fits input {x.shape} and weights {weights.shape}")
    _check_requantization(weights.transpose(3, 0, 1, 2), bias, x_quantization, weight_scales, y_quantization)
    x, mode = _pad(x, padding, x_quantization.zero_point)
    height, width = _window_output(x.shape[1:3], weights.shape[1:3], stride, dilation, mode)
    options = schema.DepthwiseConv2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        depthMultiplier=channels // x.shape[3],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=_FUSED[activation],
    )
    return run(
        "DEPTHWISE_CONV_2D",
        options,
        [
            input_tensor(x, x_quantization),
            weight_tensor(weights, weight_scales, 3),
            bias_tensor(bias, x_quantization, weight_scales),
        ],
        output_tensor((x.shape[0], height, width, channels), y_quantization),
    )


def fully_connected(
    x: Int8,
    weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """FULLY_CONNECTED: x (N, I), weights (O, I), bias (O,), weight_scales (O,) or (1,) -> (N, O)."""
    if x.shape[1] != weights.shape[1]:
        raise ValueError(f"input {x.shape} and weights {weights.shape} differ in their second dimension")
    _check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    return run(
        "FULLY_CONNECTED",
        schema.FullyConnectedOptionsT(fusedActivationFunction=_FUSED[activation]),
        [
            input_tensor(x, x_quantization),
            weight_tensor(weights, weight_scales, 0),
            bias_tensor(bias, x_quantization, weight_scales),
        ],
        output_tensor((x.shape[0], weights.shape[0]), y_quantization),
    )


def lstm(
    x: Int8,
    weights: Int8,
    recurrent_weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    recurrent_weight_scales: Float32,
    y_quantization: Quantization,
    cell_quantization: Quantization,
) -> Int8:
    """UNIDIRECTIONAL_SEQUENCE_LSTM from states of zero: x (1, T, F) -> (1, T, H).

    Of the gates in torch's order, input, forget, cell, output: weights (4, H, F), recurrent_weights (4, H,
    H), bias (4, H), and a scale per gate, (4,) each. The hidden state has `y_quantization`, the cell int16
    with a scale that is a power of two.
    """
    _check_lstm(weights, bias, x_quantization, weight_scales, cell_quantization)
    zeros = np.zeros_like(bias)
    _check_lstm(recurrent_weights, zeros, y_quantization, recurrent_weight_scales, cell_quantization)
    if largest_bound(2.0**-30 / min(y_quantization.scale, cell_quantization.scale)) < 2**30:
        raise ValueError(f"TFLM overflows: scales {y_quantization.scale} and {cell_quantization.scale}")
    units = bias.shape[1]
    biases = [
        bias_tensor(one, x_quantization, scale[None]) for one, scale in zip(bias, weight_scales, strict=True)
    ]
    inputs = [
        input_tensor(x, x_quantization),
        *(weight_tensor(one, scale[None], 0) for one, scale in zip(weights, weight_scales, strict=True)),
        *(
            weight_tensor(one, scale[None], 0)
            for one, scale in zip(recurrent_weights, recurrent_weight_scales, strict=True)
        ),
        *[None] * 3,
        *biases,
        *[None] * 2,
        state_tensor((1, units), y_quantization),
        state_tensor((1, units), cell_quantization),
        *[None] * 4,
    ]
    options = schema.UnidirectionalSequenceLSTMOptionsT(
        fusedActivationFunction=schema.ActivationFunctionType.TANH
    )
    output = output_tensor((*x.shape[:2], units), y_quantization)
    return run("UNIDIRECTIONAL_SEQUENCE_LSTM", options, inputs, output)


class PairwiseOracle(Protocol):
    """An elementwise operator of a and b, of one rank, which broadcasts along axes of length 1."""

    def __call__(
        self,
        a: Int8,
        b: Int8,
        a_quantization: Quantization,
        b_quantization: Quantization,
        y_quantization: Quantization,
        *,
        activation: Activation = "none",
    ) -> Int8: ...


def add(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """ADD."""
    _check_sum(a_quantization, b_quantization, y_quantization)
    options = schema.AddOptionsT(fusedActivationFunction=_FUSED[activation])
    return _pairwise("ADD", options, a, b, a_quantization, b_quantization, y_quantization)


def sub(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """SUB: a - b."""
    _check_sum(a_quantization, b_quantization, y_quantization)
    options = schema.SubOptionsT(fusedActivationFunction=_FUSED[activation])
    return _pairwise("SUB", options, a, b, a_quantization, b_quantization, y_quantization)


def mul(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """MUL."""
    multiplier = a_quantization.scale * b_quantization.scale / y_quantization.scale
    if largest_bound(multiplier) < 255 * 255:
        raise ValueError(f"TFLM overflows: multiplier {multiplier}")
    options = schema.MulOptionsT(fusedActivationFunction=_FUSED[activation])
    return _pairwise("MUL", options, a, b, a_quantization, b_quantization, y_quantization)


def matmul(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    transpose_b: bool,
) -> Int8:
    """BATCH_MATMUL: a (B, M, K), b (B, K, N), or (B, N, K) if transposed -> (B, M, N)."""
    multiplier = a_quantization.scale * b_quantization.scale / y_quantization.scale
    if a.shape[2] * 255 * 255 > largest_bound(multiplier):
        raise ValueError(f"TFLM overflows: sums of {a.shape[2]} products, multiplier {multiplier}")
    inputs = [input_tensor(a, a_quantization), input_tensor(b, b_quantization)]
    output = output_tensor((*a.shape[:2], b.shape[1 if transpose_b else 2]), y_quantization)
    return run("BATCH_MATMUL", schema.BatchMatMulOptionsT(adjY=transpose_b), inputs, output)


def concat(inputs: Sequence[Int8], quantization: Quantization, axis: int) -> Int8:
    """CONCATENATION along a dimension, in and out of one quantization."""
    shape = [*inputs[0].shape]
    shape[axis] = sum(x.shape[axis] for x in inputs)
    options = schema.ConcatenationOptionsT(axis=axis, fusedActivationFunction=_FUSED["none"])
    tensors = [input_tensor(x, quantization) for x in inputs]
    return run("CONCATENATION", options, tensors, output_tensor(tuple(shape), quantization))


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
    x, mode = _pad(x, padding, -128)
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
        x, mode = _pad(x, padding, quantization.zero_point)
        return _pool("AVERAGE_POOL_2D", x, quantization, kernel, stride, mode, activation)

    rows = _windows(x.shape[1], kernel[0], stride[0], padding[0], padding[1])
    columns = _windows(x.shape[2], kernel[1], stride[1], padding[2], padding[3])
    by_shape: dict[Pair, list[Pair]] = defaultdict(list)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            by_shape[bottom - top, right - left].append((i, j))
    y = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]), np.int8)
    for shape, places in by_shape.items():
        cut = np.concatenate([x[:, slice(*rows[i]), slice(*columns[j])] for i, j in places])
        means = _pool("AVERAGE_POOL_2D", cut, quantization, shape, (1, 1), schema.Padding.VALID, activation)
        for (i, j), mean in zip(places, np.split(means[:, 0, 0], len(places)), strict=True):
            y[:, i, j] = mean
    return y


def requantize(x: Int8, x_quantization: Quantization, y_quantization: Quantization) -> Int8:
    """QUANTIZE of integers: another scale, zero point or dtype for the same reals."""
    largest = 255 if x.dtype == np.int8 else int(np.abs(x.astype(np.int64)).max())
    if largest_bound(x_quantization.scale / y_quantization.scale) < largest:
        raise ValueError(f"TFLM overflows: scales {x_quantization.scale} to {y_quantization.scale}")
    return _elementwise("QUANTIZE", schema.QuantizeOptionsT(), x, x_quantization, y_quantization)


def softmax(x: Int8, x_quantization: Quantization) -> Int8:
    """SOFTMAX over the last dimension, beta 1; the output has `SOFTMAX_OUTPUT`."""
    if x_quantization.scale <= 2**-26:
        raise ValueError(f"TFLM aborts: scale {x_quantization.scale} is not above 2^-26")
    if x.shape[-1] >= 512:
        raise ValueError(f"TFLM aborts where the exponentials sum to 512 or more: got {x.shape[-1]} classes")
    return _elementwise("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), x, x_quantization, SOFTMAX_OUTPUT)


def log_softmax(x: Int8, x_quantization: Quantization) -> Int8:
    """LOG_SOFTMAX over the last dimension; the output has `LOG_SOFTMAX_OUTPUT`."""
    if x_quantization.scale <= 2**-25:
        raise ValueError(f"TFLM aborts: scale {x_quantization.scale} is not above 2^-25")
    return _elementwise("LOG_SOFTMAX", schema.LogSoftmaxOptionsT(), x, x_quantization, LOG_SOFTMAX_OUTPUT)


def unary(
    function: UnaryFunction,
    x: Int8,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    alpha: float = 0.0,
) -> Int8:
    """A function of one element, of any shape: ELU (alpha 1), LEAKY_RELU, LOGISTIC, TANH or HARD_SWISH.

    `alpha` is the slope of LEAKY_RELU, which stores it as a float32. HARD_SWISH wants an output scale above
    1/128 of the input's. TFLM's LOGISTIC and TANH write their own quantization, whatever the model says:
    `UNARY_OUTPUT`.
    """
    if UNARY_OUTPUT.get(function, y_quantization) != y_quantization:
        raise ValueError(f"{function} writes {UNARY_OUTPUT[function]}, got {y_quantization}")
    slope = max(1.0, abs(alpha)) if function == "leaky_relu" else 1.0
    if largest_bound(slope * x_quantization.scale / y_quantization.scale) < 255:
        raise ValueError(
            f"TFLM overflows: scales {x_quantization.scale} to {y_quantization.scale}, alpha {alpha}"
        )
    options = {
        "leaky_relu": schema.LeakyReluOptionsT(alpha=alpha),
        "hard_swish": schema.HardSwishOptionsT(),
    }
    return _elementwise(function.upper(), options.get(function), x, x_quantization, y_quantization)


def pad(x: Int8, quantization: Quantization, padding: Sequence[Pair]) -> Int8:
    """PAD with real zeros: before and after along each dimension of x."""
    shape = tuple(size + before + after for size, (before, after) in zip(x.shape, padding, strict=True))
    inputs = [input_tensor(x, quantization), numbers_tensor(np.array(padding, np.int32))]
    return run("PAD", schema.PadOptionsT(), inputs, output_tensor(shape, quantization))


def transpose(x: Int8, quantization: Quantization, permutation: Sequence[int]) -> Int8:
    """TRANSPOSE: dimension i of the output is dimension `permutation[i]` of x."""
    shape = tuple(x.shape[dimension] for dimension in permutation)
    inputs = [input_tensor(x, quantization), numbers_tensor(permutation)]
    return run("TRANSPOSE", schema.TransposeOptionsT(), inputs, output_tensor(shape, quantization))


def strided_slice(
    x: Int8, quantization: Quantization, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]
) -> Int8:
    """STRIDED_SLICE with strides above 0: every `strides[i]`th element of dimension i from begin[i] on."""
    shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, strides, strict=True))
    inputs = [input_tensor(x, quantization), *map(numbers_tensor, (begin, end, strides))]
    return run("STRIDED_SLICE", schema.StridedSliceOptionsT(), inputs, output_tensor(shape, quantization))


def split(x: Int8, quantization: Quantization, axis: int, parts: int, index: int) -> Int8:
    """SPLIT along an axis into equal parts: the one at `index`."""
    shape = tuple(size // parts if i == axis else size for i, size in enumerate(x.shape))
    inputs = [numbers_tensor([axis]), input_tensor(x, quantization)]
    options, output = schema.SplitOptionsT(numSplits=parts), output_tensor(shape, quantization)
    return run("SPLIT", options, inputs, output, outputs=parts, wanted=index)


def resize_nearest(x: Int8, quantization: Quantization, size: Pair) -> Int8:
    """RESIZE_NEAREST_NEIGHBOR of (N, H, W, C) to another height and width, from the upper left corners."""
    shape = (x.shape[0], *size, x.shape[3])
    inputs, options = (
        [input_tensor(x, quantization), numbers_tensor(size)],
        schema.ResizeNearestNeighborOptionsT(),
    )
    return run("RESIZE_NEAREST_NEIGHBOR", options, inputs, output_tensor(shape, quantization))


def resize_bilinear(
    x: Int8, quantization: Quantization, size: Pair, *, align_corners: bool, half_pixel_centers: bool
) -> Int8:
    """RESIZE_BILINEAR of (N, H, W, C) to another height and width of at most 1024.

    Pixels are at their upper left corners without `half_pixel_centers`, which exclude `align_corners`.
    """
    if align_corners and half_pixel_centers:
        raise ValueError("TFLM aborts: align_corners excludes half_pixel_centers")
    if max(size) > 1024:
        raise ValueError(f"TFLM reads beyond the input: size {size} is above 1024")
    options = schema.ResizeBilinearOptionsT(alignCorners=align_corners, halfPixelCenters=half_pixel_centers)
    inputs = [input_tensor(x, quantization), numbers_tensor(size)]
    output = output_tensor((x.shape[0], *size, x.shape[3]), quantization)
    return run("RESIZE_BILINEAR", options, inputs, output)


def activation_range(activation: Activation, quantization: Quantization) -> Pair:
    """The int8 values (lowest, highest) to which TFLM clamps an output with this fused activation.

    Measured, by pooling all 256 values with a window of one.

    >>> activation_range("relu6", Quantization(0.03125, -128))
    (-128, 64)
    """
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 1, 256, 1)
    clamped = max_pool(every, quantization, (1, 1), activation=activation)
    return int(clamped.min()), int(clamped.max())


def _check_requantization(
    weights: Int8, bias: Int32, x_quantization: Quantization, scales: Float32, y_quantization: Quantization
) -> None:
    if bias.shape != (len(weights),):
        raise ValueError(f"bias has shape {bias.shape}, expected ({len(weights)},)")
    bounds = accumulator_bound(weights, bias)
    for bound, scale in zip(bounds.tolist(), np.broadcast_to(scales, bounds.shape).tolist(), strict=True):
        multiplier = x_quantization.scale * scale / y_quantization.scale
        if bound > largest_bound(multiplier):
            raise ValueError(f"TFLM overflows: |accumulator| up to {bound}, multiplier {multiplier}")


def _check_lstm(
    weights: Int8, bias: Int32, x_quantization: Quantization, scales: Float32, cell_quantization: Quantization
) -> None:
    if cell_quantization.dtype != "int16" or math.frexp(cell_quantization.scale)[0] != 0.5:
        raise ValueError(f"the cell is int16 with a power of two as its scale, got {cell_quantization}")
    # Sums are requantized to steps of 2^-12.
    for gate, gate_bias, scale in zip(weights, bias, scales[:, None], strict=True):
        _check_requantization(gate, gate_bias, x_quantization, scale, Quantization(2.0**-12, 0))


def _check_sum(a: Quantization, b: Quantization, y: Quantization) -> None:
    if 2 * max(a.scale, b.scale) / (2**20 * y.scale) >= 1:
        raise ValueError(f"TFLM aborts: output scale {y.scale} is too small for the inputs' scales")


def _check_pool_padding(kernel: Pair, padding: Padding) -> None:
    if padding != "same" and (max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]):
        raise ValueError(f"padding {padding} must be smaller than the kernel {kernel}")


def _pad(x: Int8, padding: Padding, value: int) -> tuple[Int8, int]:
    if padding == "same":
        return x, schema.Padding.SAME
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)
    return padded, schema.Padding.VALID


def _window_output(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: Pair, dilation: Pair, mode: int
) -> tuple[int, int]:
    def along(axis: int) -> int:
        reach = 1 if mode == schema.Padding.SAME else (kernel[axis] - 1) * dilation[axis] + 1
        if reach > size[axis]:
            raise ValueError(
                f"kernel {kernel} with dilation {dilation} is larger than the padded input {size}"
            )
        return (size[axis] - reach) // stride[axis] + 1

    return along(0), along(1)


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
    height, width = _window_output(x.shape[1:3], kernel, stride, (1, 1), mode)
    options = schema.Pool2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        fusedActivationFunction=_FUSED[activation],
    )
    output = output_tensor((x.shape[0], height, width, x.shape[3]), quantization)
    return run(operator, options, [input_tensor(x, quantization)], output)


def _elementwise(
    operator: str, options: object | None, x: Int8, x_quantization: Quantization, y_quantization: Quantization
) -> Int8:
    return run(operator, options, [input_tensor(x, x_quantization)], output_tensor(x.shape, y_quantization))


def _pairwise(
    operator: str,
    options: object,
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
) -> Int8:
    if a.ndim != b.ndim:
        raise ValueError(f"ranks differ: {a.shape} and {b.shape}")
    output = output_tensor(np.broadcast_shapes(a.shape, b.shape), y_quantization)
    inputs = [input_tensor(a, a_quantization), input_tensor(b, b_quantization)]
    return run(operator, options, inputs, output)
