"""Constants that a model repeats for each sample and concatenates with its values, as a class token."""

from __future__ import annotations

from collections.abc import Mapping

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
        if node.target is not aten.cat.default:
            continue
        arguments = arguments_of(node, aten.cat.default)
        tensors, dim = list(arguments["tensors"]), arguments["dim"]
        others = [tensor for tensor in tensors if tensor not in of_one_sample]
        for index, tensor in enumerate(tensors):
            constant, length = of_one_sample.get(tensor), tensor.meta["val"].shape[dim]
            long = (other for other in others if other.meta["val"].shape[dim] >= length)
            if constant is not None and (neighbour := next(long, None)) is not None:
                tensors[index] = _of_ones(node, constant, tensor, neighbour, dim)
        node.args = (tensors, *node.args[1:])
    calls.eliminate_dead_code()


def _of_ones(node: fx.Node, constant: fx.Node, tensor: fx.Node, neighbour: fx.Node, dim: int) -> fx.Node:
    """The product before `node` of a constant of one sample and ones; `tensor` is the repeated constant."""
    shape = tensor.meta["val"].shape
    part = insert_call(node, aten.narrow.default, self=neighbour, dim=dim, start=0, length=shape[dim])
    zeros = insert_call(node, aten.mul.Tensor, self=part, other=0.0)
    ones = insert_call(node, aten.add.Tensor, self=zeros, other=1.0)
    return insert_call(node, aten.mul.Tensor, self=ones, other=constant)
