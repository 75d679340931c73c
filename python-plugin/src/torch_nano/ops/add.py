"""Element-wise addition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..library.definition import Definition, functional
from ._pairwise import check_pairs
from ._sums import SumOperator


@dataclass(frozen=True)
class Add(SumOperator):
    """``y = clamp(a + b)`` of two tensors, which broadcast.

    >>> from torch_nano.ir.layer import Layer
    >>> Layer(Add(clamp_low=0.0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])]).float_run()
    (tensor([[4., 0.]]),)
    """

    name = "add"
    sign = 1

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.add.Tensor]


_call = Definition(Add, inputs=("a", "b"))


@functional
def add(
    a: Tensor,
    b: Tensor,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Addition of int8 or int16 numbers: ``y = clamp((s_a * (a - z_a) + s_b * (b - z_b)) / s_y + z_y)``.

    Rounded in fixed point as TFLM's ADD. The gradient is straight-through, and zero where the output
    saturates.

    Args:
        a: float32 [N, ...], integers of the dtype that all three quantizations have.
        b: the same shape; or either has length 1 where they differ, and is repeated there.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for no bound; clamp_high
            likewise.

    Returns:
        float32 of the common shape that holds integers of that dtype.

    Raises:
        InputError: a tensor has another dtype or shape, or holds other numbers than these integers.

    >>> a, b = torch.tensor([[10.0, 100.0]]), torch.tensor([[4.0, 100.0]])
    >>> add(a, b, Quantization(0.5, 0), Quantization(0.25, 0), Quantization(0.5, 0))
    tensor([[ 12., 127.]])
    """
    check_pairs("add", a, b)
    operator = Add(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [a, b], [a_quantization, b_quantization], y_quantization)
