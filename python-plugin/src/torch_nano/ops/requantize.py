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
    """Requantization, also to another dtype; in real numbers ``y = clamp(x)``.

    Passes insert it where a value is needed in another quantization or dtype.

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
        source, output = layer.input_quantization, layer.output_quantization
        multiplier = quantize_multiplier(source.scale / output.scale)
        difference = layer.input.to(torch.int32) - source.zero_point
        bounds, dtype = self.integer_bounds(layer), output.torch_dtype
        return fixed_point.requantize(difference, [multiplier], output.zero_point, bounds, dtype)


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
    """Requantizes int8, int16 or int32 numbers to int8 or int16: ``y = clamp(s_x / s_y * (x - z_x) + z_y)``.

    The product is rounded twice, as by nano-core's ``Multiplier::apply``: half up to the multiplier's 31
    bits, then half away from zero. The gradient is straight-through, and zero where the output is clamped.

    Args:
        x: float32 [N, ...] that holds integers of the dtype of `x_quantization`.
        x_quantization: scale, zero point and dtype of x.
        y_quantization: scale, zero point and dtype of the output.
        clamp_low: real lower bound of the output; None: the smallest integer of its dtype.
        clamp_high: real upper bound of the output; None: the largest integer of its dtype.

    Returns:
        float32 of the same shape that holds integers of the output's dtype.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers; or there is no
            requantization between the dtypes.

    >>> requantize(torch.tensor([[10.0, -100.0]]), Quantization(0.5, 0), Quantization(0.25, 5))
    tensor([[  25., -128.]])
    >>> requantize(torch.tensor([[10.0, -100.0]]), Quantization(0.5, 0), Quantization(0.001, 0, "int16"))
    tensor([[  5000., -32768.]])
    """
    operator = Requantize(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [x], [x_quantization], y_quantization)
