"""Softmax over the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import softmax_parameters

from ..arithmetic.fixed_point import (
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

_LARGEST = 2**31 - 1
#: Integer bits of the fixed-point differences, and of the sum of exponentials.
DIFFERENCE_BITS, SUM_BITS = 5, 12


@dataclass(frozen=True)
class Softmax(Operator):
    """``y = exp(x) / sum exp(x)`` over the channels; its output has scale 1/256 and zero point -128.

    >>> Layer(Softmax(), [torch.zeros(1, 4)]).float_run()
    (tensor([[0.2500, 0.2500, 0.2500, 0.2500]]),)
    """

    name = "softmax"
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.softmax.int]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        return over_channels(cls(), call)

    def float_run(self, layer: Layer) -> Tensor:
        return torch.softmax(layer.input, 1)

    def integer_run(self, layer: Layer) -> Tensor:
        return probabilities(layer)


def probabilities(layer: Layer, taking_part: Tensor | None = None) -> Tensor:
    """The softmax of a layer's integers; with `taking_part`, bool [channels, ...], over these channels, and 0
    for the others.
    """
    x = layer.input.to(torch.int64)
    scores = x if taking_part is None else x.where(taking_part, -128)
    difference = (scores.amax(1, keepdim=True) - x).clamp(min=0)
    terms = exponentials(layer.input_quantization.scale).to(x.device)[difference]
    if taking_part is not None:
        terms = terms * taking_part
    total = rounding_divide_by_power_of_two(terms, SUM_BITS).sum(1, keepdim=True)
    # frexp returns the number of bits; an int32 sum is exact in float64.
    headroom = 32 - torch.frexp(total.to(torch.float64)).exponent.to(torch.int64)
    reciprocal = reciprocal_of_one_plus((total << headroom) - 2**31)
    right_shift = SUM_BITS + 31 - 8 - headroom
    products = doubling_high_multiply(reciprocal, terms)
    scaled = rounding_divide_by_power_of_two(products, right_shift.clamp(max=31))
    scaled = scaled.where(right_shift <= 31, 0)
    return (scaled - 128).clamp(-128, 127).to(torch.int8)


@lru_cache(maxsize=64)
def exponentials(scale: float) -> Tensor:
    """int64 [256]: ``exp(-scale * d)`` as Q31 for differences d = 0 to 255; 0 for those too large."""
    mantissa, shift, smallest = softmax_parameters(scale)
    differences = -torch.arange(256)
    visible = differences >= smallest
    fixed = doubling_high_multiply(differences.where(visible, 0) << shift, mantissa)
    return _exponential_of_negative(fixed).where(visible, 0)


def _exponential_of_negative(x: Tensor) -> Tensor:
    """``e^x`` for x <= 0 with 5 integer bits, as Q31: a polynomial on [-1/4, 0), a factor per other bit."""
    fractional_bits = 31 - DIFFERENCE_BITS
    quarter = 1 << (fractional_bits - 2)
    in_quarter = (x & (quarter - 1)) - quarter
    rest = in_quarter - x
    result = _exponential_between_minus_quarter_and_0(in_quarter << DIFFERENCE_BITS)
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for bit, factor in enumerate(factors, fractional_bits - 2):
        result = torch.where((rest >> bit) & 1 == 1, doubling_high_multiply(result, factor), result)
    return result.where(x != 0, _LARGEST)


def _exponential_between_minus_quarter_and_0(x: Tensor) -> Tensor:
    """``e^x``, Q31 to Q31: the Taylor series to the fourth power around -1/8."""
    exponential_of_minus_eighth, third = 1895147668, 715827883
    x = x + (1 << 28)
    square = doubling_high_multiply(x, x)
    cube = doubling_high_multiply(square, x)
    quarter_of_fourth = rounding_divide_by_power_of_two(doubling_high_multiply(square, square), 2)
    third_and_fourth = doubling_high_multiply(quarter_of_fourth + cube, third)
    higher = rounding_divide_by_power_of_two(third_and_fourth + square, 1)
    return exponential_of_minus_eighth + doubling_high_multiply(x + higher, exponential_of_minus_eighth)


def reciprocal_of_one_plus(x: Tensor) -> Tensor:
    """``1 / (1 + x)`` for x in [0, 1), Q31 to Q31: three Newton steps from 48/17 - 32/17 (1 + x) / 2."""
    half_denominator = (x + 2**31) >> 1
    estimate = 1515870810 + doubling_high_multiply(half_denominator, -1010580540)
    for _ in range(3):
        error = (1 << 29) - doubling_high_multiply(half_denominator, estimate)
        estimate = estimate + shift_left_saturating(doubling_high_multiply(estimate, error), 2)
    return shift_left_saturating(estimate, 1)


_call = Definition(Softmax)


@functional
def softmax(x: Tensor, x_quantization: Quantization) -> Tensor:
    """Softmax of int8 numbers over dimension 1: ``y = round(256 * exp(s_x * x) / sum exp(s_x * x)) - 128``.

    Computed in fixed point as TFLM's SOFTMAX. The output has scale 1/256 and zero point -128. The gradient is
    that of the float softmax, zero where the output saturates.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> softmax(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), Quantization(0.1, 0))
    tensor([[-64., -64., -64., -64.]])
    """
    return _call(Softmax(), [x], [x_quantization])
