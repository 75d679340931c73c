"""Calls on tensors whose batch is not the first dimension, rewritten to tensors whose batch is.

A module with the time first reads [steps, N, F], and a recurrent module returns its final states as
[layers, N, H]. Here such tensors are replaced by those with the batch first: permutations only change the
order that is remembered, other calls get other dimensions. A call without a rule stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from .expansion import arguments_of, insert_call

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

_PERMUTATIONS: frozenset[Target] = frozenset(
    {
        aten.movedim.int,
        aten.movedim.intlist,
        aten.permute.default,
        aten.swapaxes.default,
        aten.transpose.int,
    }
)
#: Calls with an argument "dim" or "dims": dimensions of their first argument, ...
_WITH_DIMENSIONS: frozenset[Target] = frozenset(
    {
        aten.amax.default,
        aten.amin.default,
        aten.flip.default,
        aten.mean.dim,
        aten.narrow.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.softmax.int,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.sum.dim_IntList,
    }
)
#: ... or of their result.
_WITH_NEW_DIMENSION: frozenset[Target] = frozenset({aten.stack.default, aten.unsqueeze.default})
#: Calls that treat all dimensions but the last alike, besides the pointwise ones.
_ON_LAST: frozenset[Target] = frozenset({aten.layer_norm.default, aten.linear.default, aten.rms_norm.default})
_ON_ELEMENTS: frozenset[Target] = frozenset(
    {
        aten.alias.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.dropout.default,
        aten.squeeze.default,
    }
)


class _Moved(NamedTuple):
    """A tensor with its batch first, and the dimension of the batch in the original."""

    node: fx.Node
    batch: int

    def dimension(self, original: int, rank: int) -> int:
        """The dimension that was `original` in the tensor of this rank."""
        return _moved_dimension(original, self.batch, rank)


def _moved_dimension(original: int, batch: int, rank: int) -> int:
    original %= rank
    return 0 if original == batch else original + 1 if original < batch else original


def batch_first(calls: fx.Graph) -> None:
    """Rewrites the calls of an exported program, in place; see the module."""
    _Rewriting(calls).run()


class _Rewriting:
    def __init__(self, calls: fx.Graph) -> None:
        self.calls = calls
        self.moved: dict[fx.Node, _Moved] = {}
        values = [node.meta.get("val") for node in calls.nodes if node.op == "placeholder"]
        #: The symbolic batch sizes.
        self.batches = {
            value.shape[0].node.expr
            for value in values
            if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt)
        }

    def run(self) -> None:
        rewritten = []
        for node in list(self.calls.nodes):
            batch = self._batch(node)
            if node.target is aten.sym_size.int and node.args[0] in self.moved:
                self._take_size(node)
            if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
                continue
            sources = [source for source in node.all_input_nodes if source in self.moved]
            if batch is None or not (sources or batch):
                continue
            made = self._rewritten(node, node.target, batch)
            if made is None:
                continue
            rewritten.append(node)
            if batch:
                self.moved[node] = _Moved(made, batch)
            else:
                node.replace_all_uses_with(made)
        # Calls in place and dropouts are no dead code for fx.
        for node in reversed(rewritten):
            if not node.users:
                self.calls.erase_node(node)
        self.calls.eliminate_dead_code()

    def _take_size(self, node: fx.Node) -> None:
        """Lets a size be that of the rewritten tensor."""
        source, dim = node.args
        assert isinstance(source, fx.Node) and isinstance(dim, int)
        moved = self.moved[source]
        node.args = (moved.node, moved.dimension(dim, _rank(source)))

    def _batch(self, node: fx.Node) -> int | None:
        """The dimension of the batch in what a node returns; None if there is none, or several."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        found = [
            index
            for index, side in enumerate(value.shape)
            if isinstance(side, torch.SymInt) and side.node.expr in self.batches
        ]
        return found[0] if len(found) == 1 else None

    def _rewritten(self, node: fx.Node, target: Target, batch: int) -> fx.Node | None:
        """The node's result with its batch first; None if there is no rule."""
        arguments = arguments_of(node, target)
        if (part := _part_of_stack(target, arguments)) is not None:
            return self.moved[part].node if part in self.moved else part
        tensors = {source: self._source(source) for source in node.all_input_nodes if _rank(source)}
        if not tensors:
            return None
        first = next(iter(tensors))
        source = tensors[first]
        if source is None:
            return None
        if target in _PERMUTATIONS:
            return self._permuted(node, target, arguments, first, source, batch)
        if target is aten.slice.Tensor and first.meta["val"].shape == node.meta["val"].shape:
            return source.node
        alike = all(
            other is not None and other.batch == source.batch and _rank(tensor) == _rank(first)
            for tensor, other in tensors.items()
        )
        changed: Mapping[str, Any] = {}
        if target in _WITH_DIMENSIONS or target is aten.cat.default:
            changed = _dimensions(arguments, lambda dim: source.dimension(dim, _rank(first)))
        elif target in _WITH_NEW_DIMENSION:
            changed = _dimensions(arguments, lambda dim: _moved_dimension(dim, batch, _rank(node)))
        elif target in _ON_LAST:
            parameters = [tensor for tensor in tensors if tensor is not first]
            alike = source.batch < _rank(first) - 1 and all(self._batch(each) is None for each in parameters)
        elif torch.Tag.pointwise in target.tags:
            constants = [tensor for tensor in tensors if self._batch(tensor) is None]
            arguments |= {
                name: _with_batch_first(node, given, _rank(node), batch)
                for name, given in arguments.items()
                if given in constants
            }
            alike = all(
                tensor in constants
                or (other is not None and other.batch == batch and _rank(tensor) == _rank(node))
                for tensor, other in tensors.items()
            )
        elif target not in _ON_ELEMENTS:
            return None
        if not alike or any(dim == 0 for dims in changed.values() for dim in _as_list(dims)):
            return None
        return self._call(node, target, {**arguments, **changed})

    def _permuted(
        self,
        node: fx.Node,
        target: Target,
        arguments: Mapping[str, Any],
        first: fx.Node,
        source: _Moved,
        batch: int,
    ) -> fx.Node:
        # Sides that differ show where each dimension goes.
        sides = torch.empty(tuple(range(2, 2 + _rank(first))), device="meta")
        order = [side - 2 for side in target(**{**arguments, "self": sides}).shape]
        order.insert(0, order.pop(batch))
        dims = [source.dimension(dim, _rank(first)) for dim in order]
        if dims == sorted(dims):
            return source.node
        return self._call(node, aten.permute.default, {"self": first, "dims": dims})

    def _source(self, node: fx.Node) -> _Moved | None:
        batch = self._batch(node)
        return self.moved.get(node) or (_Moved(node, 0) if batch == 0 or batch is None else None)

    def _call(self, node: fx.Node, target: Target, arguments: Mapping[str, Any]) -> fx.Node:
        """Inserts a call that reads the rewritten tensors before a node."""

        def rewritten(argument: fx.Node) -> fx.Node:
            return self.moved[argument].node if argument in self.moved else argument

        return insert_call(node, target, **fx.map_arg(dict(arguments), rewritten))


def _with_batch_first(node: fx.Node, constant: fx.Node, rank: int, batch: int) -> fx.Node:
    """A constant that is broadcast to a tensor of `rank` with its batch elsewhere, for that with its batch
    first.
    """
    if _rank(constant) < rank - batch:
        return constant
    for _ in range(rank - _rank(constant)):
        constant = insert_call(node, aten.unsqueeze.default, self=constant, dim=0)
    return insert_call(node, aten.movedim.int, self=constant, source=batch, destination=0)


def _part_of_stack(target: Target, arguments: Mapping[str, Any]) -> fx.Node | None:
    """The tensor that ``torch.stack(tensors, dim).select(dim, index)`` is; None for other calls."""
    if target is not aten.select.int or arguments["self"].target is not aten.stack.default:
        return None
    source, rank = arguments["self"], _rank(arguments["self"])
    of_stack = arguments_of(source, aten.stack.default)
    if of_stack["dim"] % rank != arguments["dim"] % rank:
        return None
    part: fx.Node = of_stack["tensors"][arguments["index"]]
    return part


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else 0


def _dimensions(arguments: Mapping[str, Any], moved: Callable[[int], int]) -> dict[str, Any]:
    """The arguments that are dimensions, moved."""
    found: dict[str, Any] = {}
    for name in ("dim", "dims"):
        if isinstance(dim := arguments.get(name), int):
            found[name] = moved(dim)
        elif dim is not None:
            found[name] = [moved(each) for each in dim]
    return found


def _as_list(dims: Any) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims)
