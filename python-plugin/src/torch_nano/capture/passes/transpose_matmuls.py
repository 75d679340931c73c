"""Transposes the second operand of matrix products in the kernel, where this shortens a move before it."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...arithmetic.layout import Shape, to_device
from ...ir.graph import Graph
from ...ops.matmul import Matmul
from ...ops.move import Move

#: Exchanges channels and width, with a height between them or without.
_TRANSPOSITIONS = {2: "permute(dims=[0, 2, 1])", 3: "permute(dims=[0, 3, 2, 1])"}


def transpose_matmuls(graph: Graph) -> Graph:
    """Chooses the order of each product's second operand by the move before it.

    The kernel reads that operand in either order at the same cost. The pass takes the order whose move copies
    fewer pieces: in attention, ``q @ k.mT`` then needs no move, or one of whole heads.
    """
    graph = graph.copy()
    for node in graph.nodes:
        if not isinstance(node.operator, Matmul):
            continue
        operand = graph.values[node.inputs[1]]
        move = graph.producer(operand.name)
        if move is None or not isinstance(move.operator, Move) or graph.only_reader(operand.name) is not node:
            continue
        if node.inputs.count(operand.name) > 1 or operand.dropouts:
            continue
        source = graph.values[move.inputs[0]].shape
        transposed = Move((*move.operator.steps, _TRANSPOSITIONS[len(operand.shape)]))
        if _pieces(transposed, source) < _pieces(move.operator, source):
            move.operator = transposed
            graph.values[operand.name] = replace(operand, shape=operand.shape[::-1])
            node.operator = replace(node.operator, transpose_b=not node.operator.transpose_b)
    return graph


def _pieces(move: Move, shape: Shape) -> int:
    """The number of contiguous pieces on the device of which a move's output consists."""
    count = torch.Size(shape).numel()
    places = to_device(torch.arange(count).reshape(1, *shape)).flatten().argsort()
    numbers = move.numbers(shape)
    order = to_device(torch.where(numbers < 0, -1, places[numbers.clamp(min=0)])[None]).flatten()
    return 1 + int((order.diff() != 1).sum())
