"""Requantization: the same real numbers in another scale and zero point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic import fixed_point
from ..arithmetic.quantization import Quantization
from ..ir.call import Call
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._clamp import ClampedOperator


@dataclass(frozen=True)
class Requantize(ClampedOperator):
    """Requantization of an int8 tensor; in real numbers ``y = clamp(x)``.

    Passes insert it where a value is needed in another quantization.

    >>> Layer(Requantize(clamp_high=6.0), [torch.tensor([[7.0]])]).float_run()
    (tensor([[6.]]),)
    """

    name = "requantize"
    elementwise = True
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        raise TypeError("no ATen call becomes a requantize; passes make it")

    def float_run(self, layer: Layer) -> Tensor:
        return self.activate(layer.input)

    def integer_run(self, layer: Layer) -> Tensor:
        x, quantization = layer.input, layer.input_quantization
        multiplier = quantize_multiplier(quantization.scale / layer.output_quantization.scale)
        difference = x.to(torch.int32) - quantization.zero_point
        zero_point = layer.output_quantization.zero_point
        return fixed_point.requantize(difference, [multiplier], zero_point, self.integer_bounds(layer))


_call = Definition(Requantize)


@functional
def requantize(
    x: Tensor,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Requantizes int8 numbers: ``y = clamp(s_x / s_y * (x - z_x) + z_y)``.

    The product is rounded twice, as by nano-core's ``Multiplier::apply``: half up to the multiplier's 31
    bits, then half away from zero. The gradient is straight-through, and zero where the output is clamped.

    Args:
        x: float32 [N, ...], integers from -128 to 127.
        x_quantization: scale and zero point of x.
        y_quantization: scale and zero point of the output.
        clamp_low: real lower bound of the output; None: the smallest int8.
        clamp_high: real upper bound of the output; None: the largest int8.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> requantize(torch.tensor([[10.0, -100.0]]), Quantization(0.5, 0), Quantization(0.25, 5))
    tensor([[  25., -128.]])
    """
    operator = Requantize(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [x], [x_quantization], y_quantization)
