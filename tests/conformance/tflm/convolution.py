"""Convolutions."""

from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import (
    Float32,
    Int8,
    Int16,
    Int32,
    Int64,
    Quantization,
    bias_tensor,
    input_tensor,
    output_tensor,
    run,
    shape_tensor,
    weight_tensor,
)
from .limits import check_requantization
from .options import FUSED, Activation, Padding, Pair
from .windows import pad_window, window_output


def conv2d(
    x: Int8 | Int16,
    weights: Int8,
    bias: Int32 | Int64,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    activation: Activation = "none",
) -> Int8 | Int16:
    """CONV_2D: x (N, H, W, C), weights (O, KH, KW, C / groups), bias (O,) -> (N, H', W', O).

    `weight_scales` is (O,) or (1,). The number of groups follows from the shapes, as in TFLite. Explicit
    padding is done here, with the zero point, before a VALID convolution; "same" is TFLM's own.
    """
    if x.shape[3] % weights.shape[3] or weights.shape[0] % (x.shape[3] // weights.shape[3]):
        raise ValueError(f"no number of groups fits input {x.shape} and weights {weights.shape}")
    check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    x, mode = pad_window(x, padding, x_quantization.zero_point)
    height, width = window_output(x.shape[1:3], weights.shape[1:3], stride, dilation, mode)
    options = schema.Conv2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=FUSED[activation],
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
    check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    height, width = ((x.shape[1 + axis] - 1) * stride[axis] + weights.shape[1 + axis] for axis in range(2))
    shape = (x.shape[0], height, width, weights.shape[0])
    options = schema.TransposeConvOptionsT(
        padding=schema.Padding.VALID,
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=FUSED[activation],
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
    x: Int8 | Int16,
    weights: Int8,
    bias: Int32 | Int64,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    activation: Activation = "none",
) -> Int8 | Int16:
    """DEPTHWISE_CONV_2D: x (N, H, W, C), weights (1, KH, KW, C * m), bias (C * m,) -> (N, H', W', C * m).

    Output channel c * m + j reads input channel c, m being the depth multiplier. Scales and padding as in
    `conv2d`.
    """
    channels = weights.shape[3]
    if weights.shape[0] != 1 or channels % x.shape[3]:
        raise ValueError(f"no depth multiplier fits input {x.shape} and weights {weights.shape}")
    check_requantization(weights.transpose(3, 0, 1, 2), bias, x_quantization, weight_scales, y_quantization)
    x, mode = pad_window(x, padding, x_quantization.zero_point)
    height, width = window_output(x.shape[1:3], weights.shape[1:3], stride, dilation, mode)
    options = schema.DepthwiseConv2DOptionsT(
        padding=mode,
        strideH=stride[0],
        strideW=stride[1],
        depthMultiplier=channels // x.shape[3],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=FUSED[activation],
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
