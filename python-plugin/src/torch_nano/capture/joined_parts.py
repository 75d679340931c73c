"""Tensors that are joined of parts along one dimension, as writes into slices leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx

from .expansion import arguments_of, insert_call

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

_ZEROS: frozenset[Target] = frozenset({aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default})
#: What such a tensor holds before it is written is undefined.
_UNDEFINED: frozenset[Target] = frozenset(
    {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}
)
#: The longest period of writes that take turns, as into ``y[:, ::2]`` and ``y[:, 1::2]``.
_LONGEST_PERIOD = 16


class Position(NamedTuple):
    """A position of a joined tensor: an index into a dimension of a source, or a zero without a source."""

    source: fx.Node | None
    at: int = 0


@dataclass
class Joined:
    """A tensor that is joined along one dimension, not yet computed: more writes may follow."""

    dim: int
    positions: list[Position]


def join(node: fx.Node, dim: int, positions: Sequence[Position], like: fx.Node) -> fx.Node:
    """The node before `node` of a joined tensor.

    Args:
        like: a tensor of its shape.
    """
    runs = _runs(positions)
    if not any(run.source for run in runs):
        return insert_call(node, aten.zeros_like.default, self=like)
    if _are_many(runs):
        for period in range(2, _LONGEST_PERIOD):
            # Positions after the last are zeros, and cut off.
            rest = -len(positions) % period
            turns = [*positions, *[Position(None)] * rest]
            parts = [turns[first::period] for first in range(period)]
            if not any(_are_many(_runs(part)) for part in parts):
                return _take_turns(node, dim, parts, len(positions))
    pieces: list[fx.Node] = []
    zeros = 0
    for run in runs:
        if run.source is None:
            if pieces:
                pieces[-1] = _padded(node, pieces[-1], dim, (0, run.length))
            else:
                zeros = run.length
            continue
        piece = run.source
        if run.length != piece.meta["val"].shape[dim]:
            end = run.first + (run.length - 1) * run.step + 1
            piece = insert_call(
                node, aten.slice.Tensor, self=piece, dim=dim, start=run.first, end=end, step=run.step
            )
        pieces.append(_padded(node, piece, dim, (zeros, 0)))
        zeros = 0
    return pieces[0] if len(pieces) == 1 else insert_call(node, aten.cat.default, tensors=pieces, dim=dim)


def _take_turns(node: fx.Node, dim: int, parts: Sequence[Sequence[Position]], length: int) -> fx.Node:
    """A joined tensor whose positions come from each part in turn."""
    along: list[Position] = []
    for part in parts:
        source = None
        if any(position.source for position in part):
            source = join(node, dim, part, node)
            source = insert_call(node, aten.unsqueeze.default, self=source, dim=dim + 1)
        along.append(Position(source))
    joined = join(node, dim + 1, along, node)
    flat = insert_call(node, aten.flatten.using_ints, self=joined, start_dim=dim, end_dim=dim + 1)
    if flat.meta["val"].shape[dim] == length:
        return flat
    return insert_call(node, aten.slice.Tensor, self=flat, dim=dim, start=0, end=length)


def _padded(node: fx.Node, piece: fx.Node, dim: int, sides: tuple[int, int]) -> fx.Node:
    """A tensor with zeros before and after it along a dimension."""
    if not any(sides):
        return piece
    after = piece.meta["val"].dim() - 1 - dim
    return insert_call(node, aten.constant_pad_nd.default, self=piece, pad=[0] * 2 * after + list(sides))


class _Run(NamedTuple):
    """Positions in a row with indices of one source in equal steps, or zeros."""

    source: fx.Node | None
    first: int
    step: int
    length: int


def _runs(positions: Sequence[Position]) -> list[_Run]:
    runs: list[_Run] = []
    for source, index in positions:
        if runs and runs[-1].source is source:
            last = runs[-1]
            step = index - last.first if last.length == 1 else last.step
            if source is None or (step > 0 and index == last.first + last.length * step):
                runs[-1] = last._replace(step=step, length=last.length + 1)
                continue
        runs.append(_Run(source, index, 1, 1))
    return runs


def _are_many(runs: Sequence[_Run]) -> bool:
    """Whether one source has more runs than a part written into its middle leaves."""
    sources = [run.source for run in runs]
    return any(sources.count(source) > 2 for source in set(sources))


def is_zero(node: fx.Node) -> bool:
    """Whether a tensor is made of zeros, or of numbers that are not defined yet."""
    if node.target in _ZEROS | _UNDEFINED:
        return True
    if node.target in (aten.full.default, aten.full_like.default, aten.new_full.default):
        assert isinstance(node.target, torch._ops.OpOverload)
        return bool(arguments_of(node, node.target)["fill_value"] == 0)
    return False
