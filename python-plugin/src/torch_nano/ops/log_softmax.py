"""Logarithm of softmax over the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import log_softmax_multiplier, softmax_parameters

from ..arithmetic.fixed_point import (
    apply_multipliers,
    doubling_high_multiply,
    rounding_divide_by_power_of_two,
    shift_left_saturating,
)
from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._channels_first import over_channels
from .softmax import DIFFERENCE_BITS, SUM_BITS, exponentials, reciprocal_of_one_plus

_ZERO_POINT = 127
#: From fixed-point differences, with 26 fractional bits, to outputs, with 4.
_OUTPUT_SHIFT = 31 - DIFFERENCE_BITS - 4


@dataclass(frozen=True)
class LogSoftmax(Operator):
    """``y = x - log sum exp(x)`` over the channels; its output has scale 1/16 and zero point 127.

    >>> Layer(LogSoftmax(), [torch.zeros(1, 4)]).float_run()
    (tensor([[-1.3863, -1.3863, -1.3863, -1.3863]]),)
    """

    name = "log_softmax"
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.log_softmax.int]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        return over_channels(cls(), call)

    def float_run(self, layer: Layer) -> Tensor:
        return torch.log_softmax(layer.input, 1)

    def integer_run(self, layer: Layer) -> Tensor:
        x, scale = layer.input.to(torch.int64), layer.input_quantization.scale
        below = x.amax(1, keepdim=True) - x
        terms = rounding_divide_by_power_of_two(exponentials(scale).to(x.device)[below], SUM_BITS)
        log_sum = _logarithm(terms.sum(1, keepdim=True))
        fixed, smallest = _differences(scale)
        # Below, the difference of the two overflows 32 bits; the output is its least anyway.
        excluded = apply_multipliers(log_sum - 2**31, [log_softmax_multiplier(scale)]).clamp(min=smallest - 1)
        logs = rounding_divide_by_power_of_two(fixed.to(x.device)[below] - log_sum, _OUTPUT_SHIFT)
        y = torch.where(-below > excluded, logs + _ZERO_POINT, -128)
        return y.clamp(-128, 127).to(torch.int8)


@lru_cache(maxsize=64)
def _differences(scale: float) -> tuple[Tensor, int]:
    """int64 [256]: ``-scale * d`` with 26 fractional bits for d = 0 to 255, 0 for those too large, and the
    smallest integer difference that counts.
    """
    mantissa, shift, smallest = softmax_parameters(scale)
    differences = -torch.arange(256)
    visible = differences.where(differences >= smallest, 0)
    return doubling_high_multiply(visible << shift, mantissa), smallest


def _logarithm(x: Tensor) -> Tensor:
    """``log x`` with 26 fractional bits, for x >= 1 with 19: x is a power of two times r in [sqrt 1/2, 1),
    and the logarithm of r a rational function around the fourth root of 1/2.
    """
    log_2, fourth_root_of_half, root_of_half, quarter = 1488522236, 1805811301, 1518500250, 1 << 23
    # With f the fourth root of 2: 11/240 f, 1/20 f, 2/f - f and 1/4 f.
    of_numerator, of_square, constant, linear = 117049297, 127690142, 1057819769, 638450708
    first_headroom = _leading_zeros(x)
    scaled = shift_left_saturating(x, first_headroom - 1)
    first = shift_left_saturating(doubling_high_multiply(scaled, root_of_half), 1)
    first_power = ((SUM_BITS - first_headroom) << 25) + quarter
    second_headroom = _leading_zeros(doubling_high_multiply(x, root_of_half)) - 1
    second = shift_left_saturating(x, second_headroom)
    second_power = ((SUM_BITS - second_headroom) << 25) - quarter
    r, power = torch.minimum(first, second), torch.maximum(first_power, second_power)
    half_sum = (r + fourth_root_of_half + 1) >> 1
    q = 2 * (r - fourth_root_of_half)
    square = doubling_high_multiply(q, q)
    cube = doubling_high_multiply(q, square)
    numerator = doubling_high_multiply(q, r) + doubling_high_multiply(cube, of_numerator)
    factor = constant + q + doubling_high_multiply(square, of_square)
    denominator = doubling_high_multiply(half_sum, factor) + doubling_high_multiply(q, linear)
    reciprocal = reciprocal_of_one_plus(denominator)
    quotient = doubling_high_multiply(rounding_divide_by_power_of_two(numerator, 6), reciprocal)
    return shift_left_saturating(doubling_high_multiply(power, log_2) + quotient, 1)


def _leading_zeros(x: Tensor) -> Tensor:
    """Those of positive numbers as 32 bits."""
    # frexp returns the number of bits; an int32 is exact in float64.
    return 32 - torch.frexp(x.to(torch.float64)).exponent.to(torch.int64)


_call = Definition(LogSoftmax)


@functional
def log_softmax(x: Tensor, x_quantization: Quantization) -> Tensor:
    """Logarithm of softmax of int8 numbers over dimension 1: ``y = 16 * log(softmax(s_x * x)) + 127``.

    Computed in fixed point as TFLM's LOG_SOFTMAX. The output has scale 1/16 and zero point 127. The gradient
    is that of the float function, zero where the output saturates, at -15.94.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> log_softmax(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), Quantization(0.1, 0))
    tensor([[105., 105., 105., 105.]])
    """
    return _call(LogSoftmax(), [x], [x_quantization])
