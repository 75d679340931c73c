"""Constants that a model repeats for each sample and joins with its values, as a class token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import fx

from .expansion import arguments_of, insert_call

aten = torch.ops.aten


def compute_class_tokens(calls: fx.Graph, of_one_sample: Mapping[fx.Node, fx.Node]) -> None:
    """Replaces each such constant in a concatenation by a product of it and ones.

    Args:
        of_one_sample: the constants, and what they repeat.

    The device has no constants among its values. The ones are ``0 * x + 1`` of a part of another input of the
    concatenation: a table and a depthwise convolution, both of the token's size. The concatenation takes
    their result and its other inputs in place.
    """
    for node in list(calls.nodes):
        target = node.target
        if target is not aten.cat.default and target is not aten.stack.default:
            continue
        assert isinstance(target, torch._ops.OpOverload)
        arguments = arguments_of(node, target)
        tensors, dim = list(arguments["tensors"]), arguments["dim"]
        others = [tensor for tensor in tensors if tensor not in of_one_sample]
        for index, tensor in enumerate(tensors):
            if (constant := of_one_sample.get(tensor)) is not None and others:
                along = None if target is aten.stack.default else dim
                tensors[index] = _of_ones(node, constant, tensor, others, along)
        node.args = (tensors, *node.args[1:])
    # Dropouts are no dead code for fx.
    for node in reversed([*of_one_sample.values(), *of_one_sample]):
        if not node.users:
            calls.erase_node(node)
    calls.eliminate_dead_code()


def _of_ones(
    node: fx.Node, constant: fx.Node, tensor: fx.Node, others: Sequence[fx.Node], dim: int | None
) -> fx.Node:
    """The product before `node` of a constant of one sample and ones.

    Args:
        tensor: the repeated constant.
        others: tensors of its shape, but for `dim`.
    """
    part, length = others[0], 0
    if dim is not None:
        length = tensor.meta["val"].shape[dim]
        part = max(others, key=lambda other: int(other.meta["val"].shape[dim]))
        # A short one is repeated.
        taken = length if part.meta["val"].shape[dim] >= length else 1
        part = insert_call(node, aten.narrow.default, self=part, dim=dim, start=0, length=taken)
    zeros = insert_call(node, aten.mul.Tensor, self=part, other=0.0)
    ones = insert_call(node, aten.add.Tensor, self=zeros, other=1.0)
    if dim is not None and taken < length:
        sides = [-1] * constant.meta["val"].dim()
        sides[dim] = length
        ones = insert_call(node, aten.expand.default, self=ones, size=sides)
    return insert_call(node, aten.mul.Tensor, self=ones, other=constant)
