"""Another scale and zero point for the same real numbers."""

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
    """``y = clamp(x)`` in real numbers; passes insert it where two quantizations must meet.

    >>> Layer(Requantize(clamp_high=6.0), [torch.tensor([[7.0]])]).float_run()
    (tensor([[6.]]),)
    """

    name = "requantize"

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
    """Requantization of int8 numbers: ``y = clamp(round(s_x / s_y * (x - z_x)) + z_y)``.

    Gradients flow straight through the rounding and are zero where the output saturates.

    Args:
        x: float32 [N, ...], integers from -128 to 127.
        clamp_low: real lower bound of the output, None for none; clamp_high likewise.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or numbers that are no such integers.

    >>> requantize(torch.tensor([[10.0, -100.0]]), Quantization(0.5, 0), Quantization(0.25, 5))
    tensor([[  25., -128.]])
    """
    operator = Requantize(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [x], [x_quantization], y_quantization)
