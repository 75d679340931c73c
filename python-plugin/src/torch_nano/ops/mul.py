"""Element-wise multiplication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic.fixed_point import apply_multipliers
from ..arithmetic.quantization import Quantization
from ..library.definition import Definition, functional
from ._pairwise import PairwiseOperator, check_pairs


@dataclass(frozen=True)
class Mul(PairwiseOperator):
    """``y = clamp(a * b)`` of two tensors, which broadcast.

    >>> from torch_nano.ir.layer import Layer
    >>> Layer(Mul(clamp_low=0.0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])]).float_run()
    (tensor([[3., 0.]]),)
    """

    name = "mul"

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.mul.Tensor]

    @classmethod
    def combine(cls, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @classmethod
    def slopes(cls, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return b, a

    @classmethod
    def combine_integers(
        cls, a: Tensor, b: Tensor, quantizations: tuple[Quantization, Quantization, Quantization]
    ) -> Tensor:
        first, second, output = quantizations
        multiplier = quantize_multiplier(first.scale * second.scale / output.scale)
        return apply_multipliers(a * b, [multiplier])


_call = Definition(Mul, inputs=("a", "b"))


@functional
def mul(
    a: Tensor,
    b: Tensor,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Multiplication of int8 or int16: ``y = clamp(round(s_a * s_b / s_y * (a - z_a) * (b - z_b)) + z_y)``.

    Gradients flow straight through the rounding and are zero where the output saturates.

    Args:
        a: float32 [N, ...], integers of the dtype that all three quantizations have.
        b: the same shape; or either has length 1 where they differ, and is repeated there.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for none; clamp_high likewise.

    Returns:
        float32 of the common shape that holds integers of that dtype.

    Raises:
        InputError: a tensor has another dtype or shape, or numbers that are no such integers.

    >>> x, gate = torch.tensor([[[10.0, 20.0], [3.0, -4.0]]]), torch.tensor([[[64.0], [-128.0]]])
    >>> mul(x, gate, Quantization(0.5, 0), Quantization(0.00390625, -128), Quantization(0.5, 0))
    tensor([[[ 8., 15.],
             [ 0.,  0.]]])
    """
    check_pairs("mul", a, b)
    operator = Mul(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [a, b], [a_quantization, b_quantization], y_quantization)
