"""Replaces a call of an exported program by the calls of its composition."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from operator import getitem
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

from ..ir.call import UnsupportedNodeError
from .compositions import Composition
from .spellings import canonical

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]


def copy_of(calls: fx.Graph) -> fx.Graph:
    """A copy that can be changed, with the names of its nodes, and with one name for each ATen call."""
    copied = copy.deepcopy(calls)
    for mine, other in zip(copied.nodes, calls.nodes, strict=True):
        # fx renames what is a name of Python, as "input".
        mine.name = other.name
        if isinstance(mine.target, torch._ops.OpOverload):
            mine.target = canonical(mine.target)
    return copied


def arguments_of(node: fx.Node, target: Target) -> dict[str, Any]:
    """All arguments of a call by name, including defaults; tensors as fx nodes."""
    return {
        argument.name: node.args[index]
        if index < len(node.args)
        else node.kwargs.get(argument.name, argument.default_value)
        for index, argument in enumerate(target._schema.arguments)
    }


def is_symbolic(node: fx.Node) -> bool:
    """Whether a node makes a tensor whose first dimension is the batch."""
    tensor = node.meta.get("val")
    return isinstance(tensor, Tensor) and tensor.dim() > 0 and isinstance(tensor.shape[0], torch.SymInt)


def insert_call(node: fx.Node, target: Target, **arguments: Any) -> fx.Node:
    """Inserts a call before `node`, with its module path and source line; returns it."""
    given = [argument for argument in target._schema.arguments if argument.name in arguments]
    args = tuple(arguments[argument.name] for argument in given if not argument.kwarg_only)
    kwargs = {argument.name: arguments[argument.name] for argument in given if argument.kwarg_only}
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args, kwargs)
    made.meta |= {key: node.meta.get(key) for key in ("nn_module_stack", "stack_trace")}
    # As torch.export: without it some calls fix the symbolic batch size.
    with enable_python_dispatcher():
        made.meta["val"] = target(**fx.map_arg(arguments, lambda source: source.meta["val"]))
    return made


def expand(node: fx.Node, target: Target, composition: Composition) -> bool:
    """Inserts the calls of a composition after `node`, with its module path and source line, and gives its
    readers their results. Returns whether the call is several layers.

    The composition is traced with the call's shapes, the batch size as a symbol.

    Raises:
        UnsupportedNodeError: from the composition; or a result is read that it cannot compute.
    """
    results = insert_composition(node, composition, arguments_of(node, target))
    if not results:
        return False
    read = {user.args[1] for user in node.users if user.target is getitem}
    if any(results[index] is None for index in read if isinstance(index, int)):
        raise UnsupportedNodeError(
            "its indices are read, which nano-core does not compute", "read its values only: x.amax(dim)"
        )
    _replace(node, results)
    return True


def insert_composition(
    node: fx.Node, composition: Composition, arguments: Mapping[str, Any]
) -> list[fx.Node | None]:
    """Inserts the calls of a composition after `node`, with its module path and source line.

    Args:
        arguments: of the composition, by name; tensors as fx nodes.

    Returns:
        The nodes of its results, none if it is one layer.

    Raises:
        UnsupportedNodeError: from the composition.
    """
    sources = list(
        dict.fromkeys(leaf for leaf in pytree.tree_leaves(dict(arguments)) if isinstance(leaf, fx.Node))
    )
    results, traced = _traced(composition, arguments, sources)
    at = node
    copies: dict[fx.Node, fx.Node] = dict(
        zip((inner for inner in traced.nodes if inner.op == "placeholder"), sources, strict=True)
    )
    for inner in traced.nodes if results else ():
        if inner.op == "call_function":
            with node.graph.inserting_after(at):
                at = copies[inner] = node.graph.node_copy(inner, copies.__getitem__)
            at.meta |= {key: node.meta.get(key) for key in ("nn_module_stack", "stack_trace")}
    return [None if result is None else copies[result] for result in results]


def _traced(
    composition: Composition, arguments: Mapping[str, Any], sources: Sequence[fx.Node]
) -> tuple[list[fx.Node | None], fx.Graph]:
    """The nodes of a composition's results, and its graph with one input for each source.

    There are no results if the call is one layer.
    """
    leaves, spec = pytree.tree_flatten(dict(arguments))
    tensors = [source for source in sources if isinstance(source.meta["val"], Tensor)]
    kept: list[bool] = []

    def run(*given: Any) -> list[Tensor]:
        values = dict(zip(sources, given, strict=True))
        filled = pytree.tree_unflatten(
            [values[leaf] if isinstance(leaf, fx.Node) else leaf for leaf in leaves], spec
        )
        result = composition(**filled)
        if result is None:
            return []
        every = result if isinstance(result, tuple) else (result,)
        kept.extend(tensor is not None for tensor in every)
        return [tensor for tensor in every if tensor is not None]

    # Detached: two nodes may share one fake tensor, and the tracer knows a tensor by its identity.
    values = [source.meta["val"] for source in sources]
    mode = next(tensor.meta["val"].fake_mode for tensor in tensors)
    with torch.no_grad(), mode:
        given = [_input(value) if isinstance(value, FakeTensor) else value for value in values]
        graph: fx.Graph = make_fx(run, pre_dispatch=True)(*given).graph
    (outputs,) = graph.output_node().args
    assert isinstance(outputs, list | tuple)
    found = iter(outputs)
    results: list[Any] = [next(found) if is_kept else None for is_kept in kept]
    return results, graph


def _input(value: Tensor) -> Tensor:
    """A tensor of the tracer's own; float32 for all real numbers, as casts between them vanish."""
    return (value.float() if value.is_floating_point() else value).detach()


def _replace(node: fx.Node, results: Sequence[fx.Node | None]) -> None:
    """Gives the readers of a call, or of its parts, its results, and removes it."""
    if isinstance(node.meta.get("val"), tuple | list):
        for user in list(node.users):
            result = results[user.args[1]]  # type: ignore[index]
            if result is not None:
                user.replace_all_uses_with(result)
            node.graph.erase_node(user)
    else:
        (only,) = results
        assert only is not None
        node.replace_all_uses_with(only)
    node.graph.erase_node(node)
