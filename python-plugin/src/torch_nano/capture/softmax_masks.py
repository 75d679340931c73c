"""Constants that exclude positions from the softmax after them: minus infinity, or a number close to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..ir.call import ComputedName, ParameterName
from ..ir.value import Value
from .vanishing import KEEPS_NUMBERS

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: Scores with this number or a smaller one added are excluded: e^-50 is 2e-22.
_LARGEST = -50.0
#: Sums, from which excluded positions stay excluded.
ADDITIONS: frozenset[Target] = frozenset({aten.add.Tensor})
_FILLS: frozenset[Target] = frozenset(
    {
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
        aten.where.self,
    }
)


@dataclass(frozen=True)
class Mask:
    """What a call excludes of a tensor of the run."""

    value: Value
    #: bool, to be broadcast to the tensor.
    excluded: Tensor
    #: What it adds to the other positions; None for nothing.
    added: Tensor | None = None


def mask_of(
    node: fx.Node, target: Target, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Mask | None:
    """The mask that a call is; None if it is none, or if others than a softmax read its result.

    Args:
        arguments: by name, tensors of the run as values.
        tensors: the constants by name.
    """
    if target not in ADDITIONS | _FILLS or not _only_softmax_reads(node):
        return None
    mask = _added(arguments, tensors) if target in ADDITIONS else _filled(arguments, tensors)
    if mask is None or tuple(node.meta["val"].shape[1:]) != mask.value.shape:
        return None
    return mask


def _only_softmax_reads(node: fx.Node) -> bool:
    def leads_to_softmax(user: fx.Node) -> bool:
        if user.target is aten.softmax.int:
            return True
        return user.target in KEEPS_NUMBERS | ADDITIONS | _FILLS and _only_softmax_reads(user)

    return bool(node.users) and all(map(leads_to_softmax, node.users))


def _added(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mask | None:
    value, constant = arguments["self"], arguments["other"]
    if not isinstance(value, Value):
        value, constant = constant, value
    given = _constant(constant, tensors)
    if not isinstance(value, Value) or given is None or arguments["alpha"] != 1:
        return None
    excluded = given <= _LARGEST
    rest = given.masked_fill(excluded, 0.0)
    # The same large number for all positions changes no softmax, and is no mask.
    is_mask = bool(excluded.any()) and not (bool(excluded.all()) and bool(given.isfinite().all()))
    if not is_mask or not bool(rest.isfinite().all()):
        return None
    return Mask(value, excluded, rest if bool(rest.any()) else None)


def _filled(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mask | None:
    if "mask" in arguments:
        excluded, value, number = arguments["mask"], arguments["self"], arguments["value"]
        inside = True
    else:
        excluded, value, number = arguments["condition"], arguments["self"], arguments["other"]
        inside = not isinstance(value, Value)
        if inside:
            value, number = number, value
    condition, filled = _constant(excluded, tensors), _constant(number, tensors)
    if not isinstance(value, Value) or condition is None or filled is None or filled.numel() != 1:
        return None
    if not bool(filled <= _LARGEST) or condition.dtype != torch.bool:
        return None
    return Mask(value, condition if inside else ~condition)


def _constant(argument: Any, tensors: Mapping[str, Tensor]) -> Tensor | None:
    if isinstance(argument, ParameterName | ComputedName):
        return tensors[argument].cpu()
    return torch.tensor(float(argument)) if isinstance(argument, int | float) else None
