"""What calls in place write, made by calls that return new tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from .expansion import insert_call

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]


class NoRuleError(Exception):
    """A call in place that has no rule."""


def is_write(target: Target) -> bool:
    """Whether a call writes into its first argument."""
    return target._schema.is_mutable


def is_in_place(node: fx.Node) -> bool:
    """Whether a node is a call that writes into its first argument."""
    return isinstance(node.target, torch._ops.OpOverload) and is_write(node.target)


def functional(target: Target) -> Target:
    """The call that returns what another writes.

    Raises:
        NoRuleError: ATen has no such call.

    >>> functional(torch.ops.aten.pow_.Scalar)
    <OpOverload(op='aten.pow', overload='Tensor_Scalar')>
    """

    def signature(overload: Target) -> list[str]:
        return [str(argument.type) for argument in overload._schema.arguments]

    packet = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    overloads: list[Target] = [] if packet is None else [getattr(packet, name) for name in packet.overloads()]
    for overload in overloads:
        # A view, as of transpose_, changes what the tensor is, not its memory.
        is_view = overload._schema.returns[0].alias_info is not None
        if signature(overload) == signature(target) and not is_write(overload) and not is_view:
            return overload
    raise NoRuleError


def filled(node: fx.Node, written: fx.Node, number: Any) -> fx.Node:
    """A tensor of one number with the shape of `written`; its calls are inserted before `node`."""
    if isinstance(number, fx.Node):
        return expanded(node, number, written)
    like = written.meta["val"]
    if not any(isinstance(side, torch.SymInt) for side in like.shape):
        return insert_call(
            node, aten.full.default, size=list(like.shape), fill_value=number, dtype=like.dtype
        )
    return insert_call(node, aten.full_like.default, self=written, fill_value=number)


def expanded(
    node: fx.Node, source: fx.Node, like: fx.Node, replaced: Mapping[int, int] | None = None
) -> fx.Node:
    """A tensor that is broadcast to the shape of another, of which some sides are `replaced`."""
    shape: list[Any] = list(like.meta["val"].shape)
    for dim, side in (replaced or {}).items():
        shape[dim] = side
    given = source.meta["val"]
    if given.dtype != like.meta["val"].dtype:
        source = insert_call(node, aten.to.dtype, self=source, dtype=like.meta["val"].dtype)
    if len(given.shape) == len(shape) and all(map(is_side, given.shape, shape)):
        return source
    for _ in range(len(given.shape) - len(shape)):
        source = insert_call(node, aten.squeeze.dim, self=source, dim=0)
    before = len(shape) - len(source.meta["val"].shape)
    size = [
        -1 if dim >= before and is_side(source.meta["val"].shape[dim - before], side) else side
        for dim, side in enumerate(shape)
    ]
    for dim, side in enumerate(size):
        if isinstance(side, torch.SymInt):
            size[dim] = insert_call(node, aten.sym_size.int, self=like, dim=dim)
    return insert_call(node, aten.expand.default, self=source, size=size)


def is_side(given: Any, expected: Any) -> bool:
    """Whether two lengths are the same; symbolic ones are batch sizes."""
    if isinstance(given, torch.SymInt) or isinstance(expected, torch.SymInt):
        return isinstance(given, torch.SymInt) and isinstance(expected, torch.SymInt)
    return bool(given == expected)
