"""What a model computes of its parameters and buffers alone: ``self.mean.view(1, -1, 1)``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from ..ir.call import ComputedName, ParameterName
from ..ir.graph import Derived, new_name

Target = torch._ops.OpOverload[..., Any]


class _Role(str):
    """Stands in a call's arguments for the source of this role."""


def is_constant(node: fx.Node, target: Target, meaning: Mapping[fx.Node, Any]) -> bool:
    """Whether a call makes one tensor of parameters, buffers and numbers alone, the same in each run."""
    sources = node.all_input_nodes
    return (
        all(isinstance(meaning.get(source), ParameterName | ComputedName) for source in sources)
        and isinstance(node.meta.get("val"), Tensor)
        and not target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in target.tags
    )


def take_constant(
    node: fx.Node,
    target: Target,
    meaning: Mapping[fx.Node, Any],
    tensors: dict[str, Tensor],
    derived: dict[str, Derived],
) -> ComputedName:
    """Adds what such a call makes to the tensors, and how it is made of float ones to the derived.

    Returns:
        Its name.
    """
    sources = {_Role(f"source_{index}"): meaning[source] for index, source in enumerate(node.all_input_nodes)}
    roles = dict(zip(node.all_input_nodes, sources, strict=True))
    trained = {role: name for role, name in sources.items() if tensors[name].is_floating_point()}

    def argument(source: fx.Node) -> _Role | Tensor:
        # Integers, such as the positions of an embedding, do not change in training.
        role = roles[source]
        return role if role in trained else tensors[sources[role]]

    arguments = fx.map_arg(node.args, argument), fx.map_arg(node.kwargs, argument)
    made = Derived(
        partial(_call, target, *arguments), {str(role): str(name) for role, name in trained.items()}
    )
    name = new_name(node.name, tensors)
    with torch.no_grad():
        tensors[name] = made.compute(tensors)
    if trained and tensors[name].is_floating_point():
        derived[name] = made
    return ComputedName(name)


def _call(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], /, **tensors: Tensor) -> Tensor:
    def filled(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [filled(item) for item in argument]
        return tensors[argument] if isinstance(argument, _Role) else argument

    result: Tensor = target(
        *(filled(argument) for argument in args),
        **{key: filled(argument) for key, argument in kwargs.items()},
    )
    return result.to(torch.float32) if result.is_floating_point() else result
