"""Functionalization: calls in place, rewritten to calls that return new tensors.

``x.relu_()``, ``x[:, 0] = 0`` and ``y[:, ::2] = a`` write into memory that other tensors, the views, share.
Here each such call computes the whole tensor anew, and what is read later is the new tensor, or a view of it:
``y = torch.zeros(n, 8); y[:, 2:] = x`` becomes a padding, and writes into all parts of a tensor a
concatenation. A write that has no rule, and one into a parameter or buffer, stays as it is and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from ..ops._steps import PERMUTATIONS, RESHAPES
from .batch_dimension import order_of
from .expansion import arguments_of, insert_call
from .in_place_calls import NoRuleError, expanded, filled, functional, is_in_place, is_side
from .joined_parts import Joined, Position, is_zero, join
from .spellings import canonical
from .vanishing import ALIASES, CASTS

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: Views of some positions along one dimension; those of `_SEVERAL` are read by getitem.
_PARTS: frozenset[Target] = frozenset({aten.narrow.default, aten.select.int, aten.slice.Tensor})
_SEVERAL: frozenset[Target] = frozenset(
    {
        aten.chunk.default,
        aten.split.Tensor,
        aten.split.sizes,
        aten.split_with_sizes.default,
        aten.tensor_split.indices,
        aten.tensor_split.sections,
        aten.unbind.int,
    }
)
_FILLS: frozenset[Target] = frozenset({aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default})


@dataclass
class _Memory:
    """A tensor that owns memory, and what it holds now."""

    content: fx.Node | Joined
    #: Counts the writes.
    version: int = 0


@dataclass
class _View:
    """A tensor that shares the memory of `parent`, and its node at a version of the memory."""

    memory: _Memory
    parent: fx.Node | None
    #: The call that made it.
    call: fx.Node
    node: fx.Node
    version: int = 0
    #: The call of several views that getitem reads.
    several: fx.Node | None = None


def functionalize(calls: fx.Graph, constants: Mapping[str, Tensor]) -> None:
    """Rewrites the calls in place of an exported program.

    Args:
        constants: parameters, buffers and constants by the names of their placeholders.
    """
    if any(is_in_place(node) for node in calls.nodes):
        _Functionalization(calls, constants).run()


class _Functionalization:
    def __init__(self, calls: fx.Graph, constants: Mapping[str, Tensor]) -> None:
        self.calls, self.constants = calls, constants
        self.views: dict[fx.Node, _View] = {}

    def run(self) -> None:
        replaced: set[fx.Node] = set()
        for node in list(self.calls.nodes):
            if node.target is aten.detach_.default:
                node.target = aten.detach.default
            if is_in_place(node) and self._writes(node):
                replaced.add(node)
                continue
            # Views are made anew when they are read; shapes do not change.
            if self._note_view(node) or node.target is aten.sym_size.int:
                continue
            self._read(node)
            if isinstance(node.meta.get("val"), Tensor):
                self.views[node] = _View(_Memory(node), None, node, node)
        # From the end on: a view that nothing reads any more may be all that reads a call in place. fx keeps
        # dropouts, which it takes for random.
        for node in reversed(list(self.calls.nodes)):
            erasable = node in replaced or node.target in ALIASES or not node.is_impure()
            if erasable and not node.users:
                self.calls.erase_node(node)

    def _read(self, node: fx.Node) -> None:
        """Lets a node read what its arguments hold now."""
        for source in node.all_input_nodes:
            if source in self.views:
                current = self._current(source, node)
                if current is not source:
                    node.replace_input_with(source, current)

    def _note_view(self, node: fx.Node) -> bool:
        """Notes a node that shares the memory of another tensor."""
        several = None
        parent: Any = node.args[0] if node.args else None
        if node.target is getitem and isinstance(parent, fx.Node) and parent.target in _SEVERAL:
            several, parent = parent, parent.args[0]
        if node.target in _SEVERAL:
            return True
        # For torch.export the copy of a constant written in forward shares its memory.
        is_copy = node.target is aten.lift_fresh_copy.default
        if is_copy or parent not in self.views or not _share_memory(node, parent):
            return False
        of = self.views[parent]
        if node.target is aten.slice.Tensor and _is_whole(node):
            # As of y[:, 1].
            self.views[node] = of
            return True
        version = of.memory.version
        if isinstance(of.memory.content, fx.Node) and of.version == version:
            self._read(several or node)
        else:
            version = -1
        self.views[node] = _View(of.memory, parent, node, node, version, several)
        return True

    def _current(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        """What a tensor holds now, computed before its reader."""
        view = self.views[node]
        memory = view.memory
        if view.version == memory.version and not (
            view.parent is None and isinstance(memory.content, Joined)
        ):
            return view.node
        if view.parent is None:
            if isinstance(memory.content, Joined):
                memory.content = join(reader, memory.content.dim, memory.content.positions, node)
            view.node = memory.content
        else:
            parent = self._current(view.parent, reader)
            view.node = self._view_again(view, parent, reader)
        view.version = memory.version
        return view.node

    def _view_again(self, view: _View, parent: fx.Node, reader: fx.Node) -> fx.Node:
        def copied(original: fx.Node, source: fx.Node) -> fx.Node:
            with self.calls.inserting_before(reader):
                return self.calls.node_copy(
                    original, lambda argument: source if argument is original.args[0] else argument
                )

        if view.several is None:
            return copied(view.call, parent)
        return copied(view.call, copied(view.several, parent))

    def _writes(self, node: fx.Node) -> bool:
        """Rewrites a call in place; whether it has a rule."""
        target, written = node.target, node.args[0]
        assert isinstance(target, torch._ops.OpOverload) and isinstance(written, fx.Node)
        memory = self.views[written].memory
        root = memory.content
        try:
            if isinstance(root, fx.Node) and root.op == "placeholder" and root.name in self.constants:
                raise NoRuleError
            self._write(node, written, self._result(node, target, written))
        except NoRuleError:
            self._read(node)
            self.views[node] = _View(_Memory(node), None, node, node)
            return False
        # It returns what it has written.
        self.views[node] = self.views[written]
        return True

    def _result(self, node: fx.Node, target: Target, written: fx.Node) -> fx.Node | Joined:
        """What the tensor holds that a call writes into."""
        for source in node.all_input_nodes:
            if source is not written and source in self.views:
                node.replace_input_with(source, self._current(source, node))
        arguments = arguments_of(node, target)
        if target in _FILLS:
            return filled(node, written, arguments.get("value", 0))
        if target is aten.copy_.default:
            return expanded(node, arguments["src"], written)
        if (parts := self._indexed(node, target, written, arguments)) is not None:
            return parts
        if target is aten.fill_diagonal_.default:
            return self._diagonal(node, written, arguments)
        returning = canonical(functional(target))
        current = self._current(written, node)
        names = [argument.name for argument in returning._schema.arguments]
        given = [current, *list(arguments.values())[1:]]
        made = insert_call(node, returning, **dict(zip(names, given, strict=True)))
        # Values have the names of the user's calls.
        made.name, node.name = node.name, made.name
        return made

    def _diagonal(self, node: fx.Node, written: fx.Node, arguments: Mapping[str, Any]) -> fx.Node:
        """A matrix whose diagonal is a number.

        Raises:
            NoRuleError: it has more dimensions.
        """
        sides = written.meta["val"].shape
        if len(sides) > 2 or arguments["wrap"]:
            raise NoRuleError
        current = self._current(written, node)
        diagonal = insert_call(node, aten.diagonal.default, self=current)
        number = filled(node, diagonal, arguments["fill_value"])
        return insert_call(node, aten.diagonal_scatter.default, self=current, src=number)

    def _indexed(
        self, node: fx.Node, target: Target, written: fx.Node, arguments: Mapping[str, Any]
    ) -> Joined | fx.Node | None:
        """The result of a write at constant indices along one dimension; None for another call.

        Raises:
            NoRuleError: the indices are others.
        """
        if target is aten.index_put_.default:
            given = [(dim, index) for dim, index in enumerate(arguments["indices"]) if index is not None]
            if len(given) != 1 or arguments["accumulate"]:
                raise NoRuleError
            ((dim, index),) = given
            value = arguments["values"]
        elif target is aten.index_copy_.default:
            dim, index, value = arguments["dim"], arguments["index"], arguments["source"]
        elif target in (aten.index_fill_.int_Scalar, aten.index_fill_.int_Tensor):
            dim, index, value = arguments["dim"], arguments["index"], arguments["value"]
        else:
            return None
        indices = self._number(index)
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0] if indices.dim() == 1 else indices
        if indices.dim() > 1:
            raise NoRuleError
        dim %= written.meta["val"].dim()
        length = written.meta["val"].shape[dim]
        if not isinstance(length, int):
            raise NoRuleError
        at = [int(each) % length for each in indices.reshape(-1).tolist()]
        replaced = {dim: len(at)}
        if isinstance(value, fx.Node):
            part = expanded(node, value, written, replaced)
        else:
            shape = list(written.meta["val"].shape)
            one = insert_call(node, aten.narrow.default, self=written, dim=dim, start=0, length=1)
            sides: list[Any] = [-1] * len(shape)
            sides[dim] = len(at)
            one = insert_call(node, aten.expand.default, self=one, size=sides)
            part = filled(node, one, value)
        return self._written(node, written, dim, at, part)

    def _number(self, node: fx.Node) -> Tensor:
        """The numbers of a constant.

        Raises:
            NoRuleError: the node is not a constant.
        """
        if node.op == "placeholder" and node.name in self.constants:
            return self.constants[node.name].detach().cpu()
        if not isinstance(node.target, torch._ops.OpOverload) or is_in_place(node):
            raise NoRuleError
        numbers: Any = node.target(
            *fx.map_arg(node.args, self._number), **fx.map_arg(node.kwargs, self._number)
        )
        if not isinstance(numbers, Tensor):
            raise NoRuleError
        return numbers

    def _write(self, node: fx.Node, written: fx.Node, content: fx.Node | Joined) -> None:
        """Records what a tensor holds, and the tensors whose memory it shares."""
        view = self.views[written]
        memory = view.memory
        if view.parent is None:
            memory.content = content
            memory.version += 1
            return
        if isinstance(content, Joined):
            content = join(node, content.dim, content.positions, written)
        self._write(node, view.parent, self._parent(node, view, content))
        view.node, view.version = content, memory.version

    def _parent(self, node: fx.Node, view: _View, content: fx.Node) -> fx.Node | Joined:
        """What the parent of a view holds after a write into the view."""
        assert view.parent is not None
        call = view.several or view.call
        target, rank = call.target, view.parent.meta["val"].dim()
        if view.several or target in _PARTS:
            assert isinstance(target, torch._ops.OpOverload)
            arguments = arguments_of(call, target)
            dim = arguments["dim"] % rank
            length = view.parent.meta["val"].shape[dim]
            if not isinstance(length, int):
                raise NoRuleError
            numbers = torch.arange(length).reshape([length if each == dim else 1 for each in range(rank)])
            taken = target(**{**arguments, next(iter(arguments)): numbers})
            if view.several:
                taken = taken[view.call.args[1]]
            if taken.dim() < rank:
                content = insert_call(node, aten.unsqueeze.default, self=content, dim=dim)
            return self._written(node, view.parent, dim, taken.flatten().tolist(), content)
        if target in PERMUTATIONS:
            assert isinstance(target, torch._ops.OpOverload)
            order = order_of(target, arguments_of(call, target), rank)
            back = [order.index(dim) for dim in range(rank)]
            return insert_call(node, aten.permute.default, self=content, dims=back)
        if target in RESHAPES:
            shape = [
                insert_call(node, aten.sym_size.int, self=view.parent, dim=dim)
                if isinstance(side, torch.SymInt)
                else side
                for dim, side in enumerate(view.parent.meta["val"].shape)
            ]
            return insert_call(node, aten.reshape.default, self=content, shape=shape)
        if target is aten.diagonal.default:
            arguments = {**arguments_of(call, target), "self": self._current(view.parent, node)}
            return insert_call(node, aten.diagonal_scatter.default, src=content, **arguments)
        if target not in ALIASES | CASTS:
            raise NoRuleError
        return content

    def _written(
        self, node: fx.Node, written: fx.Node, dim: int, at: Sequence[int], part: fx.Node
    ) -> Joined | fx.Node:
        """A tensor with a part at positions along a dimension."""
        view = self.views[written]
        before = view.memory.content if view.parent is None else self._current(written, node)
        if not (isinstance(before, Joined) and before.dim == dim):
            before = Joined(dim, self._positions(self._current(written, node), dim))
        positions = list(before.positions)
        zero = is_zero(part)
        for index, position in enumerate(at):
            positions[position] = Position(None) if zero else Position(part, index)
        return Joined(dim, positions)

    def _positions(self, tensor: fx.Node, dim: int) -> list[Position]:
        length = tensor.meta["val"].shape[dim]
        if is_zero(tensor):
            return [Position(None)] * length
        return [Position(tensor, index) for index in range(length)]


def _is_whole(node: fx.Node) -> bool:
    before, after = node.all_input_nodes[0].meta["val"].shape, node.meta["val"].shape
    return len(before) == len(after) and all(map(is_side, before, after))


def _share_memory(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes are tensors of one memory, as torch.export found."""
    first, second = a.meta.get("val"), b.meta.get("val")
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    return bool(first.untyped_storage()._cdata == second.untyped_storage()._cdata)
