"""PReLU: the slope below zero is a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic.fixed_point import apply_multipliers
from ..arithmetic.quantization import Quantization
from ..ir.call import Call
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, Parameters, check_integers, functional


@dataclass(frozen=True)
class Prelu(Operator):
    """``y = x`` for x >= 0, else ``slope * x``; the parameter "weight" has a slope for each channel, or one.

    >>> x = torch.tensor([[-2.0, -2.0, 3.0]])
    >>> Layer(Prelu(), [x], {"weight": torch.tensor([0.5, 0.25, 0.0])}).float_run()
    (tensor([[-1.0000, -0.5000,  3.0000]]),)
    """

    name = "prelu"
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.prelu.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        return cls(), [call.input("self")], call.parameters("weight")

    def float_run(self, layer: Layer) -> Tensor:
        return F.prelu(layer.input, layer.parameters["weight"])

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        slopes = layer.parameters["weight"].detach()
        (shape,) = layer.input_shapes
        largest = slopes.abs().max()
        scale = torch.where(largest > 0, largest / 127, 1.0).to(torch.float32)
        alpha = (slopes.double() / scale.double()).round().clamp(-127, 127).to(torch.int8)
        return {"alpha": alpha.expand(shape[0]).contiguous(), "alpha_scale": scale.reshape(1)}

    def integer_run(self, layer: Layer) -> Tensor:
        input_, output = layer.input_quantization, layer.output_quantization
        alpha_scale = float(layer.tensors["alpha_scale"])
        above, below = (
            quantize_multiplier(real)
            for real in (input_.scale / output.scale, input_.scale * alpha_scale / output.scale)
        )
        difference = layer.input.to(torch.int64) - input_.zero_point
        slopes = layer.tensors["alpha"].to(torch.int64).reshape(-1, *[1] * (difference.dim() - 2))
        negative = apply_multipliers(difference * slopes, [below])
        y = torch.where(difference < 0, negative, apply_multipliers(difference, [above]))
        return (y + output.zero_point).clamp(*output.bounds).to(torch.int8)


def _tensors(layer: Layer, alpha: Tensor, alpha_scale: Tensor) -> dict[str, Tensor]:
    check_integers("prelu: alpha", alpha, -128, 127)
    return {"alpha": alpha.to(torch.int8), "alpha_scale": alpha_scale.to(torch.float32).reshape(1)}


def _real(layer: Layer, alpha: Tensor, alpha_scale: Tensor) -> dict[str, Tensor]:
    return {"weight": alpha * alpha_scale}


_call = Definition(
    Prelu,
    parameters=Parameters(("Tensor alpha", "Tensor alpha_scale"), constant=1, tensors=_tensors, real=_real),
)


@functional
def prelu(
    x: Tensor,
    alpha: Tensor,
    alpha_scale: Tensor,
    x_quantization: Quantization,
    y_quantization: Quantization,
) -> Tensor:
    """PReLU of int8 numbers: ``y = s_x / s_y * (x - z_x) + z_y``, below z_x times ``s_alpha * alpha``.

    Computed as TFLM's PRELU: both products are rounded twice. The gradient is that of the float function,
    zero where the output saturates.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.
        alpha: float32 [channels], the slopes: integers from -128 to 127.
        alpha_scale: float32 [1], their s_alpha; gets no gradient.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype, or holds other numbers than these integers.

    >>> x, alpha = torch.tensor([[-8.0, -8.0, 8.0]]), torch.tensor([64.0, 32.0, 0.0])
    >>> prelu(x, alpha, torch.tensor([1 / 128]), Quantization(0.5, 0), Quantization(0.5, 0))
    tensor([[-4., -2.,  8.]])
    """
    return _call(Prelu(), [x], [x_quantization], y_quantization, [alpha, alpha_scale])
