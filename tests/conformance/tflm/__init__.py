"""The oracle of the conformance tests: single operators run by TensorFlow Lite Micro (TFLM).

Every function runs one operator with TFLM's reference kernels and returns the output, int8 or of the dtype
of the output's quantization. Nothing is
computed here: numpy pads and cuts, TFLM does the arithmetic.

Layouts are TFLite's: activations NHWC, convolution weights OHWI, depthwise weights 1HWO, fully connected
weights (out, in). 1-D data is 2-D with height 1. Where TFLM would abort the process, or overflow (undefined
behaviour of C++), a `ValueError` is raised instead: there the oracle has nothing to say.
"""

from .convolution import conv2d, conv_transpose2d, depthwise_conv2d
from .elementwise import (
    LOG_SOFTMAX_OUTPUT,
    SOFTMAX_OUTPUT,
    UNARY_OUTPUT,
    UnaryFunction,
    log_softmax,
    prelu,
    requantize,
    softmax,
    unary,
)
from .limits import accumulator_bound, largest_bound
from .linear import fully_connected, matmul
from .movement import concat, pad, resize_nearest, split, strided_slice, transpose
from .options import Activation, Padding, Pair
from .pairwise import PairwiseOracle, add, mul, sub
from .pooling import activation_range, average_pool, max_pool
from .recurrent import lstm
from .resizing import resize_bilinear
from .selection import INDEX, argmax, gather

__all__ = [
    "INDEX",
    "LOG_SOFTMAX_OUTPUT",
    "SOFTMAX_OUTPUT",
    "UNARY_OUTPUT",
    "Activation",
    "Padding",
    "Pair",
    "PairwiseOracle",
    "UnaryFunction",
    "accumulator_bound",
    "activation_range",
    "add",
    "argmax",
    "average_pool",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "depthwise_conv2d",
    "fully_connected",
    "gather",
    "largest_bound",
    "log_softmax",
    "lstm",
    "matmul",
    "max_pool",
    "mul",
    "pad",
    "prelu",
    "requantize",
    "resize_bilinear",
    "resize_nearest",
    "softmax",
    "split",
    "strided_slice",
    "sub",
    "transpose",
    "unary",
]
