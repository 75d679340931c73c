"""Constants that a model repeats for each sample and concatenates with its values, as a class token."""

from __future__ import annotations

import torch
from torch import fx

from .expansion import arguments_of, insert_call, is_symbolic

aten = torch.ops.aten

_ALIASES = (aten.alias.default, aten.clone.default, aten.contiguous.default)


def compute_class_tokens(calls: fx.Graph) -> None:
    """Replaces each such constant in a concatenation by a product of it and ones.

    The device has no constants among its values. The ones are ``0 * x + 1`` of a part of another input of the
    concatenation: a table and a depthwise convolution, both of the token's size. The concatenation takes
    their result and its other inputs in place.
    """
    for node in list(calls.nodes):
        if node.target is not aten.cat.default:
            continue
        arguments = arguments_of(node, aten.cat.default)
        tensors, dim = list(arguments["tensors"]), arguments["dim"]
        others = [tensor for tensor in tensors if _repeated(tensor) is None and is_symbolic(tensor)]
        for index, tensor in enumerate(tensors):
            constant, length = _repeated(tensor), tensor.meta["val"].shape[dim]
            long = (other for other in others if other.meta["val"].shape[dim] >= length)
            if constant is not None and (neighbour := next(long, None)) is not None:
                tensors[index] = _of_ones(node, constant, tensor, neighbour, dim)
        node.args = (tensors, *node.args[1:])
    calls.eliminate_dead_code()


def _repeated(node: fx.Node) -> fx.Node | None:
    """The constant that a node repeats for each sample; None if it does not."""
    while node.target in _ALIASES:
        node = node.all_input_nodes[0]
    if node.target not in (aten.expand.default, aten.repeat.default):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source if is_symbolic(node) and not is_symbolic(source) and len(source.meta["val"]) == 1 else None


def _of_ones(node: fx.Node, constant: fx.Node, tensor: fx.Node, neighbour: fx.Node, dim: int) -> fx.Node:
    """The product before `node` of a constant of one sample and ones; `tensor` is the repeated constant."""
    shape = tensor.meta["val"].shape
    part = insert_call(node, aten.narrow.default, self=neighbour, dim=dim, start=0, length=shape[dim])
    zeros = insert_call(node, aten.mul.Tensor, self=part, other=0.0)
    ones = insert_call(node, aten.add.Tensor, self=zeros, other=1.0)
    return insert_call(node, aten.mul.Tensor, self=ones, other=constant)
