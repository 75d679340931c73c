"""The ReLU family: clamps of real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call
from ..ir.operator import Operator
from ..ir.value import Value
from .table import TableOperator

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation(TableOperator):
    """``y = clamp(x, low, high)``, None for no bound; a lookup table unless fused into the layer before it.

    >>> from torch_nano.ir.layer import Layer
    >>> Layer(Activation(0.0, 6.0), [torch.tensor([[-1.0, 7.0]])]).float_run()
    (tensor([[0., 6.]]),)
    """

    low: float | None
    high: float | None

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        names = ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max")
        return [getattr(aten, spelling).default for name in names for spelling in (name, f"{name}_")]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        arguments = {"relu": {"min": 0.0}, "relu6": {"min": 0.0, "max": 6.0}}.get(
            call.function, call.arguments
        )
        low = arguments.get("min_val", arguments.get("min"))
        high = arguments.get("max_val", arguments.get("max"))
        return cls(_real(low), _real(high)), [call.input("self")], {}

    def function_of(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.low, self.high)

    @property
    def calls(self) -> Sequence[str]:
        return ["clamp"]


def _real(bound: Any) -> float | None:
    return None if bound is None else float(bound)
