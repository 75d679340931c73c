"""Constants that a model makes for each sample of a batch: ``torch.zeros(len(x), 8)``, ``p.expand(N, -1)``.

All samples have the same, so one sample is enough where it is broadcast.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from ..ops._steps import RESHAPES
from .expansion import arguments_of, insert_call
from .vanishing import CASTS

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: Calls that make a tensor of one number, ...
_MAKERS: frozenset[Target] = frozenset(
    {
        aten.full.default,
        aten.ones.default,
        aten.zeros.default,
    }
)
#: ... and those that take its shape or dtype from another tensor.
_ALIKE: dict[Target, Target] = {
    aten.full_like.default: aten.full.default,
    aten.new_full.default: aten.full.default,
    aten.new_ones.default: aten.ones.default,
    aten.new_zeros.default: aten.zeros.default,
    aten.ones_like.default: aten.ones.default,
    aten.zeros_like.default: aten.zeros.default,
}
#: Calls that repeat a tensor, ...
_REPETITIONS: frozenset[Target] = frozenset({aten.expand.default, aten.repeat.default})
#: ... and calls that treat samples alike, besides the pointwise ones.
_OF_SAMPLES: frozenset[Target] = frozenset(
    {
        aten.alias.default,
        aten.bmm.default,
        aten.cat.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.dropout.default,
        aten.embedding.default,
        aten.layer_norm.default,
        aten.linear.default,
        aten.mT.default,
        aten.matmul.default,
        aten.permute.default,
        aten.rms_norm.default,
        aten.scaled_dot_product_attention.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.softmax.int,
        aten.transpose.int,
    }
)
#: Those that are not if their dimension is that of the batch.
_ALONG: frozenset[Target] = frozenset({aten.cat.default, aten.slice.Tensor, aten.softmax.int})
#: Calls that repeat a tensor of one sample for the others, besides the pointwise ones, and what to call then.
_BROADCASTING: dict[Target, Target] = {
    aten.bmm.default: aten.matmul.default,
    aten.matmul.default: aten.matmul.default,
    aten.scaled_dot_product_attention.default: aten.scaled_dot_product_attention.default,
}
#: They start from the same state for each sample.
_RECURRENT: frozenset[Target] = frozenset(
    {
        torch.ops.torch_nano.gru_layer.default,
        torch.ops.torch_nano.lstm_layer.default,
        torch.ops.torch_nano.rnn_layer.default,
    }
)


def share_batch_constants(calls: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Lets the calls that broadcast such constants read those of one sample.

    Returns:
        The constants, and those of one sample.
    """
    for node in list(calls.nodes):
        if node.target in _ALIKE and _is_fixed(node):
            # It takes a dtype only from the other tensor.
            node.replace_all_uses_with(_made_alone(node, list(node.meta["val"].shape)))
            calls.erase_node(node)
    made: dict[fx.Node, fx.Node] = {}
    placeholders = [node for node in calls.nodes if node.op == "placeholder"]
    runs = {node for node in placeholders if _batch(node) is not None}
    for node in list(calls.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        shared = _of_one_sample(node, node.target, made, runs)
        if shared is None:
            if any(
                isinstance(source.meta.get("val"), Tensor) and source in runs
                for source in node.all_input_nodes
            ):
                runs.add(node)
            continue
        made[node] = shared
    for node, shared in made.items():
        for user in list(node.users):
            if user not in made and _broadcasts(user):
                user.replace_input_with(node, shared)
                if isinstance(target := user.target, torch._ops.OpOverload):
                    user.target = _BROADCASTING.get(target, target)
    return made


def _is_fixed(node: fx.Node) -> bool:
    return not any(isinstance(side, torch.SymInt) for side in node.meta["val"].shape)


def _made_alone(node: fx.Node, shape: list[int]) -> fx.Node:
    """What a call of `_ALIKE` makes, of a shape and without the other tensor."""
    assert isinstance(node.target, torch._ops.OpOverload)
    arguments = arguments_of(node, node.target)
    fill = {"fill_value": arguments["fill_value"]} if "fill_value" in arguments else {}
    return insert_call(node, _ALIKE[node.target], size=shape, dtype=node.meta["val"].dtype, **fill)


def _batch(node: fx.Node) -> int | None:
    """The dimension of a tensor whose length is symbolic; None if there is no such one, or several."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    sides: tuple[Any, ...] = tuple(value.shape)
    found = [(index, side) for index, side in enumerate(sides) if isinstance(side, torch.SymInt)]
    # Not 2 * N: it joins samples.
    return found[0][0] if len(found) == 1 and bool(found[0][1].node.expr.is_symbol) else None


def _of_one_sample(
    node: fx.Node, target: Target, made: dict[fx.Node, fx.Node], runs: set[fx.Node]
) -> fx.Node | None:
    """What a constant of the batch is for one sample; None for other nodes."""
    batch = _batch(node)
    if batch is None:
        return None
    shape = [1 if isinstance(side, torch.SymInt) else side for side in node.meta["val"].shape]
    arguments = arguments_of(node, target)
    if target in _ALIKE:
        return _made_alone(node, shape)
    sources = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]
    if target in _MAKERS:
        return insert_call(node, target, **{**arguments, "size": shape})
    if target in CASTS and sources[0] in made:
        # The other tensor of x.to(other) gives a dtype only.
        return insert_call(node, aten.to.dtype, self=made[sources[0]], dtype=node.meta["val"].dtype)
    if not sources or any(source in runs for source in sources):
        return None
    if target in _REPETITIONS:
        source = sources[0].meta["val"]
        if sources[0] not in made and any(isinstance(side, torch.SymInt) for side in source.shape):
            return None
        position = batch - (len(shape) - source.dim())
        if position >= 0 and source.shape[position] != 1 and sources[0] not in made:
            return None
        name = "size" if target is aten.expand.default else "repeats"
        arguments[name] = [1 if index == batch else side for index, side in enumerate(arguments[name])]
    elif all(source in made or _batch(source) is None for source in sources) and made.keys() & set(sources):
        if target in RESHAPES:
            before = sources[0].meta["val"].shape[: _batch(sources[0]) or 0]
            if prod(before) != prod(shape[:batch]):
                return None
            return insert_call(node, aten.reshape.default, self=made[sources[0]], shape=shape)
        if target not in _OF_SAMPLES and torch.Tag.pointwise not in target.tags:
            return None
        if "dim" in arguments and arguments["dim"] % len(shape) == batch and target in _ALONG:
            return None
    else:
        return None
    return insert_call(node, target, **fx.map_arg(arguments, lambda source: made.get(source, source)))


def _broadcasts(user: fx.Node) -> bool:
    """Whether a call repeats a tensor of one sample for the others."""
    target = user.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    several = (
        len([source for source in user.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]) > 1
    )
    pointwise = torch.Tag.pointwise in target.tags
    if target in _RECURRENT:
        return True
    return several and (pointwise or target in _BROADCASTING)
