"""Several functions of one variable as one: a lookup table like that of a single function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call
from ..ir.operator import Operator
from ..ir.value import Value
from .table import TableOperator, call_elementwise

#: An ATen call: its name as in :class:`~torch_nano.ops.table.Table`, the numbers of its operands (0 is x, n
#: the result of the n-th call), and its further arguments by name.
Step = tuple[str, tuple[int, ...], tuple[tuple[str, float | str | None], ...]]


@dataclass(frozen=True)
class Expression(TableOperator):
    """An expression of one variable: elementwise ATen calls, whose last result is the output.

    The table has the numbers that the calls give in float32, rounded once.

    >>> from torch_nano.ir.layer import Layer
    >>> silu = Expression((("sigmoid", (0,), ()), ("mul.Tensor", (0, 1), ())))
    >>> Layer(silu, [torch.tensor([[0.0, 8.0]])]).float_run()
    (tensor([[0.0000, 7.9973]]),)
    """

    steps: tuple[Step, ...]

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        raise TypeError("a pass makes expressions, no call does")

    def function_of(self, x: Tensor) -> Tensor:
        results = [x]
        for name, operands, arguments in self.steps:
            results.append(call_elementwise(name, [results[operand] for operand in operands], arguments))
        return results[-1]

    @property
    def calls(self) -> Sequence[str]:
        return [name for name, _, _ in self.steps]
