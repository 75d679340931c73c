"""Selections by a mask that depends on the input: ``torch.where(x > 0, x, 0.1 * x)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..ops.table import call_elementwise

aten = torch.ops.aten

_NUMBERS = {
    (): "where.self",
    ("other",): "where.ScalarOther",
    ("self",): "where.ScalarSelf",
    ("self", "other"): "where.Scalar",
}


@dataclass(frozen=True)
class Select(Operator):
    """torch's ``where`` of a mask, 0 or 1, and two sides, each a tensor or a number.

    It never runs in integers: passes make it a part of a table, or a sum of products.

    >>> mask, x = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 4.0]])
    >>> Layer(Select((("other", 0.5),)), [mask, x]).float_run()
    (tensor([[0.5000, 4.0000]]),)
    """

    name = "select"
    elementwise = True

    #: The sides that are numbers, by their name: "self" where the mask is 1, "other" where it is 0.
    numbers: tuple[tuple[str, float], ...] = ()

    @property
    def function(self) -> str:
        """ATen's name of the call."""
        return _NUMBERS[tuple(name for name, _ in self.numbers)]

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.where.Scalar, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.self]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        inputs = [call.input("condition")]
        numbers: list[tuple[str, float]] = []
        for name in ("self", "other"):
            side = call.arguments[name]
            if isinstance(side, Value):
                inputs.append(side)
                continue
            number = _number(side if isinstance(side, int | float) else call.tensors[side])
            if not isfinite(number):
                raise UnsupportedNodeError(
                    f"its mask depends on the input, and selects {number}",
                    "use a mask that is the same in each run, or a finite number",
                )
            numbers.append((name, number))
        if len({len(value.shape) for value in inputs}) > 1:
            raise UnsupportedNodeError(
                f"it broadcasts {', '.join(str(value.shape) for value in inputs)}, which differ in rank",
                "give all the same number of dimensions, of length 1 where one is repeated",
            )
        return cls(tuple(numbers)), inputs, {}

    def float_run(self, layer: Layer) -> Tensor:
        return call_elementwise(self.function, layer.inputs, self.numbers)

    def integer_run(self, layer: Layer) -> Tensor:
        raise TypeError("a selection must be lowered before it is quantized")


def _number(side: Tensor | float) -> float:
    if not isinstance(side, Tensor):
        return float(side)
    if not side.numel() or bool((side != side.flatten()[0]).any()):
        raise UnsupportedNodeError(
            "its mask depends on the input, and it selects from a tensor that does not",
            "multiply: mask * a + (1 - mask) * b, with mask = (x > 0).float()",
        )
    return float(side.flatten()[0])
