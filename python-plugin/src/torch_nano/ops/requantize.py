"""Another scale and zero point for the same real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from . import _integer
from ._clamp import ClampedOperator
from ._library import Definition, functional
from .operator import Call, Operator, Quantization, Value


@dataclass(frozen=True)
class Requantize(ClampedOperator):
    """``y = clamp(x)`` in real numbers; passes insert it where two quantizations must meet.

    >>> Requantize(clamp_high=6.0).float_run([torch.tensor([[7.0]])], {})
    tensor([[6.]])
    """

    name = "requantize"

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        raise TypeError("no ATen call becomes a requantize; passes make it")

    def float_run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return self.activate(inputs[0])

    def attributes(self, output: Quantization) -> dict[str, int]:
        return self.clamp_attributes(output)

    def integer_run(
        self,
        inputs: Sequence[Tensor],
        tensors: Mapping[str, Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization,
    ) -> Tensor:
        (x,), (quantization,) = inputs, input_quantization
        multiplier = quantize_multiplier(quantization.scale / output_quantization.scale)
        clamp = self.clamp_attributes(output_quantization)
        difference = x.to(torch.int32) - quantization.zero_point
        bounds = (clamp["clamp_min"], clamp["clamp_max"])
        return _integer.requantize(difference, [multiplier], output_quantization.zero_point, bounds)


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
