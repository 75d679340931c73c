"""Calls on tensors whose batch is not the first dimension alone, rewritten to tensors whose batch is.

A module with the time first reads [steps, N, F], a recurrent module returns its final states as [layers, N,
H], and a model that treats all steps or windows alike joins them with the samples, [N * steps, F]. Here such
tensors are replaced by those with the batch first: permutations and reshapes only change the layout that is
remembered, other calls get other dimensions. A call without a rule runs on each part that is joined with the
batch by itself; one with parameters, which would be stored as often, and any other stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..ops._steps import PERMUTATIONS, RESHAPES
from .batch_layout import BatchLayout, batch_of, sides_of
from .expansion import arguments_of, insert_call, insert_composition
from .joined_images import RULES, on_each, on_joined

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: Calls with an argument "dim" or "dims": dimensions of their first argument, ...
_WITH_DIMENSIONS: frozenset[Target] = frozenset(
    {
        aten.amax.default,
        aten.amin.default,
        aten.argmax.default,
        aten.argmin.default,
        aten.cat.default,
        aten.chunk.default,
        aten.flip.default,
        aten.glu.default,
        aten.linalg_vector_norm.default,
        aten.log_softmax.int,
        aten.max.dim,
        aten.mean.dim,
        aten.min.dim,
        aten.narrow.default,
        aten.roll.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.softmax.int,
        aten.split.Tensor,
        aten.split.sizes,
        aten.split_with_sizes.default,
        aten.std.correction,
        aten.std.dim,
        aten.sum.dim_IntList,
        aten.topk.default,
        aten.tensor_split.indices,
        aten.tensor_split.sections,
        aten.unbind.int,
        aten.var.correction,
        aten.var.dim,
    }
)
#: Calls that repeat a tensor along dimensions of length 1.
_EXPANSIONS: frozenset[Target] = frozenset({aten.expand.default, aten.expand_as.default})
#: ... or of their result.
_WITH_NEW_DIMENSION: frozenset[Target] = frozenset({aten.stack.default})
#: Calls on the last dimensions, by their number; all others are treated alike. Their further tensors are
#: parameters, ...
_ON_LAST: dict[Target, Callable[[Mapping[str, Any]], int]] = {
    aten.constant_pad_nd.default: lambda arguments: len(arguments["pad"]) // 2,
    aten.layer_norm.default: lambda arguments: len(arguments["normalized_shape"]),
    aten.linear.default: lambda _: 1,
    aten.pad.default: lambda arguments: len(arguments["pad"]) // 2,
    aten.rms_norm.default: lambda arguments: len(arguments["normalized_shape"]),
}
#: ... or are broadcast in all dimensions before the last two.
_OF_MATRICES: dict[Target, Target] = {
    aten.bmm.default: aten.matmul.default,
    aten.matmul.default: aten.matmul.default,
    aten.scaled_dot_product_attention.default: aten.scaled_dot_product_attention.default,
}
_ON_ELEMENTS: frozenset[Target] = frozenset(
    {
        aten.alias.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.dropout.default,
        aten.embedding.default,
        aten.where.Scalar,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
    }
)


class _Moved(NamedTuple):
    """A tensor with its batch first, and where the original has it."""

    node: fx.Node
    layout: BatchLayout


class LeftCalls(NamedTuple):
    """Calls that still work on tensors whose batch is not the first dimension alone."""

    #: Calls without a rule: where the batch is in what they read.
    causes: Mapping[fx.Node, BatchLayout]
    #: Calls that are left because of these: those that only they read, and those that read their results.
    others: frozenset[fx.Node]


def batch_first(calls: fx.Graph) -> LeftCalls:
    """Rewrites the calls of an exported program, in place; see the module.

    Returns:
        The calls that it leaves.
    """
    return _Rewriting(calls).run()


class _Rewriting:
    def __init__(self, calls: fx.Graph) -> None:
        self.calls = calls
        self.moved: dict[fx.Node, _Moved] = {}
        #: Calls without a rule that read such a tensor, and those that read their results.
        self.causes: dict[fx.Node, BatchLayout] = {}
        self.after: set[fx.Node] = set()
        #: Tensors that are left as they are.
        self.left: set[fx.Node] = set()
        values = [node.meta.get("val") for node in calls.nodes if node.op == "placeholder"]
        #: The symbolic batch sizes.
        self.batches = {
            value.shape[0].node.expr
            for value in values
            if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt)
        }

    def run(self) -> LeftCalls:
        rewritten = []
        for node in list(self.calls.nodes):
            if node.op != "call_function":
                continue
            if node.target is aten.sym_size.int and node.args[0] in self.moved:
                self._take_size(node)
                continue
            place = self._place(node)
            if self.left & set(node.all_input_nodes):
                self._leave(node, place)
                continue
            if place is None or not (set(node.all_input_nodes) & self.moved.keys() or place != (0, 1)):
                continue
            made = self._rewritten(node, *place)
            if made is None:
                self._leave(node, place)
                continue
            rewritten.append(node)
            if made.layout == BatchLayout():
                node.replace_all_uses_with(made.node)
            else:
                self.moved[node] = made
        # Calls in place and dropouts are no dead code for fx.
        for node in reversed(rewritten):
            if not node.users:
                self.calls.erase_node(node)
        self.calls.eliminate_dead_code()
        others = set(self.after)
        for node in reversed(self.calls.nodes):
            if node in self.moved and node.users and node.users.keys() <= others | self.causes.keys():
                others.add(node)
        return LeftCalls(self.causes, frozenset(others))

    def _leave(self, node: fx.Node, place: tuple[int, int] | None) -> None:
        """Leaves a call as it is."""
        read = [self.moved[source].layout for source in node.all_input_nodes if source in self.moved]
        if self.left & set(node.all_input_nodes):
            self.after.add(node)
        elif read:
            self.causes[node] = read[0]
        else:
            return
        if place != (0, 1):
            self.left.add(node)

    def _take_size(self, node: fx.Node) -> None:
        """Lets a size be computed of the rewritten tensor."""
        source, dim = node.args
        assert isinstance(source, fx.Node) and isinstance(dim, int)
        moved = self.moved[source]
        first, *joined = moved.layout.dims(dim, _rank(source))
        size = insert_call(node, aten.sym_size.int, self=moved.node, dim=first)
        for length in moved.layout.joined if joined else ():
            with self.calls.inserting_before(node):
                made = self.calls.call_function(operator.mul, (size, length))
            made.meta["val"] = size.meta["val"] * length
            size = made
        node.replace_all_uses_with(size)

    def _place(self, node: fx.Node) -> tuple[int, int] | None:
        """The dimension of the batch in what a node returns, and the multiple of the batch there."""
        return batch_of(node.meta.get("val"), self.batches)

    def _rewritten(self, node: fx.Node, batch: int, multiple: int) -> _Moved | None:
        """The node's result with its batch first; None if there is no rule."""
        if node.target is operator.getitem:
            if (several := self.moved.get(node.all_input_nodes[0])) is None:
                return None
            with self.calls.inserting_before(node):
                part = self.calls.call_function(operator.getitem, (several.node, node.args[1]))
            part.meta |= {**node.meta, "val": several.node.meta["val"][node.args[1]]}
            return _Moved(part, several.layout)
        if not isinstance(target := node.target, torch._ops.OpOverload):
            return None
        arguments = arguments_of(node, target)
        if (in_stack := _part_of_stack(target, arguments)) is not None:
            return self.moved.get(in_stack, _Moved(in_stack, BatchLayout()))
        operands = {
            source: found
            for source in node.all_input_nodes
            if _rank(source) and (found := self._source(source)) is not None
        }
        constants = [source for source in node.all_input_nodes if _rank(source) and source not in operands]
        if not operands or any(self._place(constant) for constant in constants):
            return None
        first, source = next(iter(operands.items()))
        if target in PERMUTATIONS:
            return self._permuted(node, target, arguments, first, source, batch)
        if target in RESHAPES:
            return self._reshaped(node, first, source, batch, multiple)
        if target is aten.slice.Tensor and first.meta["val"].shape == node.meta["val"].shape:
            return source
        layout = source.layout._replace(batch=batch)
        if target in RULES and source.layout.batch == 0 and len(operands) == 1:
            return self._image(node, target, arguments, source)
        if target in _EXPANSIONS and _rank(first) == _rank(node):
            size = [-1, *source.layout.sample(sides_of(node))]
            return _Moved(insert_call(node, aten.expand.default, self=source.node, size=size), source.layout)
        alike = all(
            other.layout == source.layout and _rank(tensor) == _rank(first)
            for tensor, other in operands.items()
        )
        if not alike:
            return None
        if target in _WITH_DIMENSIONS or target in _WITH_NEW_DIMENSION:
            of, rank = (source.layout, _rank(first)) if target in _WITH_DIMENSIONS else (layout, _rank(node))
            changed = _dimensions(arguments, lambda dim: of.dims(dim, rank)[0])
            if constants or any(dim == 0 for dims in changed.values() for dim in _as_list(dims)):
                return None
            arguments |= changed
        elif target in _ON_LAST:
            if source.layout.batch >= _rank(first) - _ON_LAST[target](arguments):
                return None
        elif target in _OF_MATRICES or torch.Tag.pointwise in target.tags:
            if target in _OF_MATRICES and batch >= _rank(node) - 2:
                return None
            arguments |= {
                name: _broadcast(node, given, _rank(node), layout)
                for name, given in arguments.items()
                if given in constants
            }
            target = _OF_MATRICES.get(target, target)
            arguments = {{"mat2": "other"}.get(name, name): given for name, given in arguments.items()}
        elif target not in _ON_ELEMENTS:
            return self._apart(node, target, arguments, source) if not constants and batch == 0 else None
        return _Moved(self._call(node, target, arguments), layout)

    def _permuted(
        self,
        node: fx.Node,
        target: Target,
        arguments: Mapping[str, Any],
        first: fx.Node,
        source: _Moved,
        batch: int,
    ) -> _Moved:
        rank = _rank(first)
        order = order_of(target, arguments, rank)
        dims = [0, *(each for dim in order for each in source.layout.dims(dim, rank) if each)]
        layout = source.layout._replace(batch=batch)
        if dims == sorted(dims):
            return _Moved(source.node, layout)
        return _Moved(insert_call(node, aten.permute.default, self=source.node, dims=dims), layout)

    def _reshaped(
        self, node: fx.Node, first: fx.Node, source: _Moved, batch: int, multiple: int
    ) -> _Moved | None:
        layout = source.layout.reshaped(sides_of(first), sides_of(node), batch, multiple)
        if layout is None:
            return None
        sample = layout.sample(sides_of(node))
        if sample == sides_of(source.node)[1:]:
            return _Moved(source.node, layout)
        size = insert_call(node, aten.sym_size.int, self=source.node, dim=0)
        return _Moved(
            insert_call(node, aten.reshape.default, self=source.node, shape=[size, *sample]), layout
        )

    def _image(
        self, node: fx.Node, target: Target, arguments: Mapping[str, Any], source: _Moved
    ) -> _Moved | None:
        """The result of a call on images, of which those of one sample have a dimension of their own."""
        name = next(iter(arguments))
        rule = partial(on_joined, target, source.layout.joined)
        (made,) = insert_composition(node, rule, {**arguments, name: source.node})
        return None if made is None else _Moved(made, source.layout)

    def _apart(
        self, node: fx.Node, target: Target, arguments: Mapping[str, Any], source: _Moved
    ) -> _Moved | None:
        """The results of a call on each part that is joined with the batch by itself."""
        returned = target._schema.returns
        if source.layout.batch or not source.layout.joined or len(returned) != 1:
            return None
        if str(returned[0].type) != "Tensor" or node.meta["val"].dim() == 0:
            return None
        rule = partial(on_each, target, source.layout.joined)
        given = {
            name: self.moved[argument].node if argument in self.moved else argument
            for name, argument in arguments.items()
        }
        (made,) = insert_composition(node, rule, given)
        return None if made is None else _Moved(made, source.layout)

    def _source(self, node: fx.Node) -> _Moved | None:
        """A tensor of the batch with the batch first."""
        if node in self.moved:
            return self.moved[node]
        return _Moved(node, BatchLayout()) if self._place(node) == (0, 1) else None

    def _call(self, node: fx.Node, target: Target, arguments: Mapping[str, Any]) -> fx.Node:
        """Inserts a call that reads the rewritten tensors before a node."""

        def rewritten(argument: fx.Node) -> fx.Node:
            return self.moved[argument].node if argument in self.moved else argument

        return insert_call(node, target, **fx.map_arg(dict(arguments), rewritten))


def order_of(target: Target, arguments: Mapping[str, Any], rank: int) -> list[int]:
    """The dimensions of the first argument of a permutation, in the order of its result."""
    # Sides that differ show where each dimension goes.
    sides = torch.empty(tuple(range(2, 2 + rank)), device="meta")
    return [side - 2 for side in target(**{**arguments, "self": sides}).shape]


def _broadcast(node: fx.Node, constant: fx.Node, rank: int, layout: BatchLayout) -> fx.Node:
    """A constant that is broadcast to a tensor of `rank`, for that with its batch first."""
    if _rank(constant) < rank - layout.batch:
        return constant
    for _ in range(rank - _rank(constant)):
        constant = insert_call(node, aten.unsqueeze.default, self=constant, dim=0)
    if layout.batch:
        constant = insert_call(node, aten.movedim.int, self=constant, source=layout.batch, destination=0)
    for _ in layout.joined:
        constant = insert_call(node, aten.unsqueeze.default, self=constant, dim=layout.batch + 1)
    return constant


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
