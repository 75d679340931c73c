"""Element-wise subtraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._pairwise import check_pairs
from ._sums import SumOperator

aten = torch.ops.aten


@dataclass(frozen=True)
class Sub(SumOperator):
    """``y = clamp(a - b)`` of two tensors, which broadcast.

    >>> from torch_nano.ir.layer import Layer
    >>> Layer(Sub(clamp_low=0.0), [torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 4.0]])]).float_run()
    (tensor([[2., 0.]]),)
    """

    name = "sub"
    sign = -1

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.sub.Tensor, aten.rsub.Tensor, aten.rsub.Scalar]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        if call.function == "rsub":
            swapped = {"self": call.arguments["other"], "other": call.arguments["self"]}
            call = replace(call, arguments={**call.arguments, **swapped})
        return super().from_call(call)


_call = Definition(Sub, inputs=("a", "b"))


@functional
def sub(
    a: Tensor,
    b: Tensor,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Subtraction of int8 or int16: ``y = clamp(round((s_a * (a - z_a) - s_b * (b - z_b)) / s_y) + z_y)``.

    Gradients flow straight through the rounding and are zero where the output saturates.

    Args:
        a: float32 [N, ...], integers of the dtype that all three quantizations have.
        b: the same shape; or either has length 1 where they differ, and is repeated there.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for none; clamp_high likewise.

    Returns:
        float32 of the common shape that holds integers of that dtype.

    Raises:
        InputError: a tensor has another dtype or shape, or numbers that are no such integers.

    >>> a, b = torch.tensor([[10.0, -100.0]]), torch.tensor([[4.0, 100.0]])
    >>> sub(a, b, Quantization(0.5, 0), Quantization(0.25, 0), Quantization(0.5, 0))
    tensor([[   8., -128.]])
    """
    check_pairs("sub", a, b)
    operator = Sub(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [a, b], [a_quantization, b_quantization], y_quantization)
