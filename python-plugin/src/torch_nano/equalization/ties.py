"""Which channels of a graph's values must be scaled by one factor."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..ir.graph import Graph, Node
from ..ops._channels import ChannelsOperator
from ..ops._clamp import ClampedOperator
from ..ops._sums import SumOperator
from ..ops._window import PoolOperator
from ..ops.concat import Concat
from ..ops.move import Move
from ..ops.mul import Mul
from ..ops.prelu import Prelu
from ..ops.resize_bilinear import ResizeBilinear


class ChannelTies:
    """Numbers the groups of channels that must have one factor, so that the graph computes the same.

    A layer with weights takes any factors at its inputs and outputs. Additions, pools, moves, PReLU and
    concatenations hand them on, so the channels of a residual stream are tied. Other operators, and the
    graph's inputs and outputs, need their numbers as they are.

    A channel is an index of a value's first dimension.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._count = 0
        self._ties: list[Tensor] = []
        self._fixed: list[Tensor] = []
        #: By value: for each channel its number; int64 [channels].
        self._numbers: dict[str, Tensor] = {}
        for name in graph.inputs:
            self._numbers[name] = self._new(name)
            self._fix(name)
        for node in graph.nodes:
            self._take(node)
        for name in graph.outputs:
            self._fix(name)
        self._groups = self._connected()

    @property
    def count(self) -> int:
        """An upper bound of the groups' numbers."""
        return self._count

    def groups(self, value: str) -> Tensor:
        """The group of each channel of a value; int64 [channels]."""
        return self._groups[self._numbers[value]]

    def fixed(self) -> Tensor:
        """The groups that cannot be scaled, some of them several times; int64."""
        numbers = torch.cat([torch.zeros(0, dtype=torch.int64), *self._fixed])
        return self._groups[numbers]

    def _new(self, value: str) -> Tensor:
        channels = self._graph.values[value].shape[0]
        self._count += channels
        return torch.arange(self._count - channels, self._count)

    def _fix(self, value: str) -> None:
        self._fixed.append(self._numbers[value])

    def _tie(self, first: Tensor, second: Tensor) -> None:
        self._ties.append(torch.stack(torch.broadcast_tensors(first, second)))  # type: ignore[no-untyped-call]

    def _take(self, node: Node) -> None:
        for name in node.outputs:
            self._numbers[name] = self._new(name)
        operator, channels = node.operator, [self._channels(name) for name in (*node.inputs, *node.outputs)]
        scales = not isinstance(operator, ClampedOperator) or operator.clamp_low in (None, 0.0)
        if isinstance(operator, ChannelsOperator) and scales:
            return
        if isinstance(operator, Move):
            self._move(node, operator)
        elif isinstance(operator, Concat) and operator.dimension == 0:
            self._tie(torch.cat([self._numbers[name] for name in node.inputs]), self._numbers[node.output])
        elif (
            isinstance(operator, Concat | PoolOperator | Prelu | ResizeBilinear) and len(set(channels)) == 1
        ) or (isinstance(operator, SumOperator) and scales and operator.clamp_high is None):
            self._tie_inputs(node, node.inputs)
        elif isinstance(operator, Mul) and scales and operator.clamp_high is None:
            # The larger factor is scaled; the other, such as a gate, stays as it is.
            scaled = max(node.inputs, key=lambda name: prod(self._graph.values[name].shape))
            self._tie_inputs(node, [scaled])
            for name in node.inputs:
                if name != scaled or node.inputs.count(name) > 1:
                    self._fix(name)
        else:
            for name in (*node.inputs, *node.outputs):
                self._fix(name)

    def _channels(self, value: str) -> int:
        return self._graph.values[value].shape[0]

    def _tie_inputs(self, node: Node, names: list[str]) -> None:
        """Ties the channels of inputs, which may be broadcast, to those of the output."""
        for name in names:
            self._tie(self._numbers[name], self._numbers[node.output])

    def _move(self, node: Node, move: Move) -> None:
        """Ties each channel of a move's output to the channels of the input that it has elements of."""
        shape = self._graph.values[node.inputs[0]].shape
        elements = move.numbers(shape)
        made = torch.arange(len(elements)).reshape(-1, *[1] * (elements.dim() - 1)).expand_as(elements)
        pairs = torch.stack([made, elements // prod(shape[1:])])[:, elements >= 0]
        self._tie(self._numbers[node.output][pairs[0]], self._numbers[node.inputs[0]][pairs[1]])

    def _connected(self) -> Tensor:
        """The smallest number that each number is tied to, directly or not."""
        groups = torch.arange(self._count)
        none = torch.zeros(2, 0, dtype=torch.int64)
        first, second = torch.cat([none, *(pairs.reshape(2, -1) for pairs in self._ties)], 1)
        while True:
            least = torch.minimum(groups[first], groups[second])
            found = groups.scatter_reduce(0, groups[first], least, "amin")
            found = found.scatter_reduce(0, groups[second], least, "amin")
            found = found[found]
            if torch.equal(found, groups):
                return groups
            groups = found
