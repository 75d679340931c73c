"""Functions of one element, other quantizations of it, and softmax."""

from typing import Literal

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Quantization, input_tensor, output_tensor, run, weight_tensor
from .limits import largest_bound

UnaryFunction = Literal["elu", "leaky_relu", "logistic", "tanh", "hard_swish"]

SOFTMAX_OUTPUT = Quantization(1 / 256, -128)
"""The only output quantization that TFLM's softmax allows."""
LOG_SOFTMAX_OUTPUT = Quantization(1 / 16, 127)
"""The only output quantization that TFLM's logarithm of softmax allows."""
UNARY_OUTPUT: dict[str, Quantization] = {
    "logistic": Quantization(1 / 256, -128),
    "tanh": Quantization(1 / 128, 0),
}
"""The output quantization of the unary functions that do not take one."""


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


def prelu(
    x: Int8, alpha: Int8, x_quantization: Quantization, alpha_scale: float, y_quantization: Quantization
) -> Int8:
    """PRELU: x (N, H, W, C), and a slope for each channel, alpha (C,), with zero point 0."""
    ratio = x_quantization.scale / y_quantization.scale
    if largest_bound(ratio) < 255 or largest_bound(ratio * alpha_scale) < 255 * 128:
        raise ValueError(
            f"TFLM overflows: scales {x_quantization.scale}, {alpha_scale}, {y_quantization.scale}"
        )
    slopes = weight_tensor(alpha.reshape(1, 1, -1), np.array([alpha_scale], np.float32), 0)
    return run(
        "PRELU", None, [input_tensor(x, x_quantization), slopes], output_tensor(x.shape, y_quantization)
    )


def _elementwise(
    operator: str, options: object | None, x: Int8, x_quantization: Quantization, y_quantization: Quantization
) -> Int8:
    return run(operator, options, [input_tensor(x, x_quantization)], output_tensor(x.shape, y_quantization))
