"""Merges consecutive moves, and folds moves into neighbouring layers where possible."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...ir.graph import Graph, Node
from ...ops._clamp import ClampedOperator
from ...ops.activation import Activation
from ...ops.fully_connected import FullyConnected
from ...ops.move import Move
from ...ops.table import TableOperator
from ..program import LARGEST_RANK

#: Dropouts of single elements, which commute with a move.
ELEMENTWISE_DROPOUTS = frozenset({"dropout", "alpha_dropout"})


def absorb_moves(graph: Graph) -> Graph:
    """Merges consecutive moves into one, and removes those that need not be layers.

    A permutation of the elements before a linear layer is folded into the layer: its columns are permuted
    when it is quantized. A move that does not change the order of the bytes on the device stays in the graph;
    it is free there.
    """
    graph = graph.copy()
    compose_moves(graph)
    _sink(graph)
    compose_moves(graph)
    for node in list(graph.nodes):
        if isinstance(node.operator, Move):
            _into_linear(graph, node, node.operator)
    graph.drop_unused()
    return graph


def compose_moves(graph: Graph) -> None:
    """Collapses consecutive moves, and removes moves that change nothing or repeat another one."""
    made: dict[tuple[str, Move], Node] = {}
    for node in list(graph.nodes):
        if not isinstance(node.operator, Move):
            continue
        before = graph.producer(node.inputs[0])
        if (
            before is not None
            and isinstance(before.operator, Move)
            and _pass_on_dropouts(graph, before, node)
        ):
            node.inputs = list(before.inputs)
            node.operator = node.operator.after(before.operator)
            _drop_unread(graph, before, made)
        source, output = graph.values[node.inputs[0]], graph.values[node.output]
        if not node.operator.is_reshape(source.shape):
            _share(graph, node, made)
        elif source.shape != output.shape:
            node.operator = Move.reshape(output.shape)
            _share(graph, node, made)
        elif output.name in graph.outputs and (source.name in graph.inputs or source.name in graph.outputs):
            node.operator = Move()
        else:
            graph.remove(node)
    graph.drop_unused()


def _drop_unread(graph: Graph, node: Node, made: dict[tuple[str, Move], Node]) -> None:
    """Removes a move that nothing reads any more, so that it does not count as a reader of its input."""
    assert isinstance(node.operator, Move)
    if graph.consumers(node.output) or node.output in graph.outputs:
        return
    key = node.inputs[0], node.operator
    if made.get(key) is node:
        del made[key]
    graph.nodes = [other for other in graph.nodes if other is not node]
    del graph.values[node.output]


def _share(graph: Graph, node: Node, made: dict[tuple[str, Move], Node]) -> None:
    """Lets the readers of a move read an earlier one of the same value, if there is one."""
    assert isinstance(node.operator, Move)
    first = made.setdefault((node.inputs[0], node.operator), node)
    values = [graph.values[each.output] for each in (first, node)]
    if first is not node and node.output not in graph.outputs and not any(v.dropouts for v in values):
        graph.redirect(node.output, first.output)


def _pass_on_dropouts(graph: Graph, before: Node, node: Node) -> bool:
    """Moves the dropouts between two moves after the second one; returns False if that changes the result."""
    between, after = graph.values[before.output], graph.values[node.output]
    assert isinstance(node.operator, Move)
    if not between.dropouts:
        return True
    if graph.only_reader(between.name) is not node:
        return False
    elementwise = all(dropout.function in ELEMENTWISE_DROPOUTS for dropout in between.dropouts)
    numbers = node.operator.numbers(between.shape)
    each_once = bool((numbers >= 0).all()) and len(set(numbers.flatten().tolist())) == numbers.numel()
    # A dropout of channels needs whole channels to stay whole.
    channels = 1 < len(after.shape) <= LARGEST_RANK and between.shape[:1] == after.shape[:1]
    if not (each_once if elementwise else channels and node.operator.is_reshape(between.shape)):
        return False
    after.dropouts = between.dropouts + after.dropouts
    return True


def _sink(graph: Graph) -> None:
    """Swaps moves with the elementwise functions that read them, where this saves a layer or elements."""
    for node in list(graph.nodes):
        if not isinstance(node.operator, Move):
            continue
        reader = graph.only_reader(node.output)
        while reader is not None and _sinks_below(graph, node, reader):
            source = graph.values[node.inputs[0]]
            middle = graph.values[node.output]
            end = graph.values[reader.output]
            # The two nodes swap places: source -> reader -> middle -> move -> end.
            graph.values[middle.name] = replace(
                end, name=middle.name, shape=source.shape, dropouts=middle.dropouts
            )
            reader.inputs, reader.outputs = list(node.inputs), [middle.name]
            node.inputs, node.outputs = [middle.name], [end.name]
            at, after = graph.nodes.index(node), graph.nodes.index(reader)
            graph.nodes[at], graph.nodes[after] = reader, node
            reader = graph.only_reader(node.output)


def _sinks_below(graph: Graph, node: Node, reader: Node) -> bool:
    """Whether to swap a move with the operator that reads it: the result is equal, the cost not higher."""
    assert isinstance(node.operator, Move)
    operator, source = reader.operator, node.inputs[0]
    if not isinstance(operator, TableOperator):
        return False
    if graph.values[node.output].dropouts and not isinstance(operator, Activation):
        return False
    shape = graph.values[source].shape
    if not 1 <= len(shape) <= LARGEST_RANK:
        return False
    numbers = node.operator.numbers(shape)
    before = graph.producer(source)
    is_fused = (
        isinstance(operator, Activation)
        and before is not None
        and isinstance(before.operator, ClampedOperator)
        and graph.only_reader(source) is node
    )
    if bool((numbers < 0).any()):
        # Padded zeros must stay zeros: of the functions, only a clamp is known to keep them.
        low, high = (operator.low, operator.high) if isinstance(operator, Activation) else (1.0, None)
        return is_fused and (low is None or low <= 0) and (high is None or high >= 0)
    return is_fused or numbers.numel() >= torch.Size(shape).numel()


def _into_linear(graph: Graph, node: Node, move: Move) -> None:
    """Folds a permutation of elements into the linear layers that read it: it permutes their columns."""
    shape = graph.values[node.inputs[0]].shape
    readers = [
        reader
        for reader in graph.consumers(node.output)
        if isinstance(reader.operator, FullyConnected) and reader.operator.flattened is None
    ]
    if not readers or len(shape) > LARGEST_RANK or not move.is_permutation(shape):
        return
    steps = () if move.is_reshape(shape) else move.steps
    if len(shape) == 1 and not steps:
        return
    graph.hand_back_dropouts(node)
    for reader in readers:
        assert isinstance(reader.operator, FullyConnected)
        reader.operator = replace(reader.operator, flattened=shape, steps=steps)
        reader.inputs = list(node.inputs)
