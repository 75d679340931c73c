"""Chooses the layouts of values so that the fewest elements are moved at run time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice, pairwise, permutations
from math import prod

import torch

from ...arithmetic.layout import Layout, Shape, device_shape
from ...ir.graph import Graph, Node
from ...ir.value import Value
from ...ops.concat import Concat
from ...ops.fully_connected import FullyConnected
from ...ops.move import Move
from ..program import LARGEST_RANK
from .absorb_moves import ELEMENTWISE_DROPOUTS, compose_moves

#: Values between them have one layout: those that elementwise operators read and make in one shape.
Region = frozenset[str]
#: Values of too many dimensions for the device, elements moved, moves that are layers, moves.
_Cost = tuple[int, int, int, int]


def choose_layouts(graph: Graph) -> Graph:
    """Gives elementwise operators, inputs and outputs the layouts that move the fewest elements.

    Values that elementwise operators connect have one layout, which is free to choose: moves at their border
    then cancel. A concatenation goes along any dimension. Inputs and outputs keep the user's shape as
    :attr:`Value.layout`. Values of more dimensions than the device has are reshaped.
    """
    graph = graph.copy()
    compose_moves(graph)
    cost = _cost(graph)
    improved = True
    while improved:
        improved = False
        for choices in _choices(graph):
            for tried in choices:
                compose_moves(tried)
                if (least := _cost(tried)) < cost:
                    best, cost, improved = tried, least, True
            if improved:
                graph = best
                break
    for node in graph.nodes:
        _simplify(graph, node)
    graph.drop_unused()
    return graph


def _choices(graph: Graph) -> Iterator[Iterator[Graph]]:
    """For each region and each concatenation, the graphs with another layout of it."""
    for region in _regions(graph):
        yield (_with_layout(graph, region, layout) for layout in _candidates(graph, region))
    for index, node in enumerate(graph.nodes):
        if isinstance(node.operator, Concat):
            orders = permutations(range(len(graph.values[node.output].shape)))
            # The first order is that of the dimensions as they are.
            yield (_with_order(graph, index, order) for order in islice(orders, 1, None))


def _regions(graph: Graph) -> list[Region]:
    """The regions, which may be single values."""
    region = {name: {name} for name in graph.values}
    for node in graph.nodes:
        if node.operator.elementwise:
            for name in node.inputs:
                if graph.values[name].shape == graph.values[node.output].shape:
                    joined = region[name] | region[node.output]
                    region.update(dict.fromkeys(joined, joined))
    return list(dict.fromkeys(map(frozenset, region.values())))


def _cost(graph: Graph) -> _Cost:
    elements = layers = moves = 0
    for node in graph.nodes:
        if not isinstance(node.operator, Move):
            continue
        moves += 1
        before, after = graph.values[node.inputs[0]].shape, graph.values[node.output].shape
        readers = graph.consumers(node.output)
        into_linear = bool(readers) and all(isinstance(reader.operator, FullyConnected) for reader in readers)
        if into_linear and node.operator.is_permutation(before):
            continue
        if not (_is_canonical(before) and _is_canonical(after)):
            continue
        kept = node.operator.keeps_bytes(before)
        elements += 0 if kept else prod(after)
        layers += not kept or device_shape(before) != device_shape(after)
    too_long = sum(not _is_canonical(value.shape) for value in graph.values.values())
    return too_long, elements, layers, moves


def _is_canonical(shape: Shape) -> bool:
    """Whether a value of the device can have the shape."""
    return 1 <= len(shape) <= LARGEST_RANK


def _candidates(graph: Graph, region: Region) -> Iterator[Layout]:
    """The layouts on the other sides of the moves at a region's border."""
    shape = next(graph.values[name].shape for name in region)
    found = [] if _is_canonical(shape) else [torch.arange(prod(shape)).reshape(shape)]
    for name in sorted(region):
        producer = graph.producer(name)
        if producer is not None and isinstance(producer.operator, Move):
            source = graph.values[producer.inputs[0]].shape
            if producer.operator.is_permutation(source):
                found.append(producer.operator.numbers(source).flatten().argsort().reshape(source))
        for reader in graph.consumers(name):
            if isinstance(reader.operator, Move) and reader.operator.is_permutation(shape):
                found.append(reader.operator.numbers(shape))
    fixed = any(_has_channels(graph, graph.values[name]) for name in region)
    tried = set()
    for numbers in found:
        for sides in _canonical_shapes(tuple(numbers.shape)):
            layout = Layout.of_numbers(numbers.reshape(sides), shape)
            if layout is None or layout in tried or (fixed and not _keeps_channels(layout)):
                continue
            tried.add(layout)
            yield layout


def _canonical_shapes(shape: Shape) -> Iterator[Shape]:
    """The shape, or what it becomes if neighbouring dimensions are joined until a device has as many.

    >>> list(_canonical_shapes((4, 5))), list(_canonical_shapes(()))
    ([(4, 5)], [(1,)])
    >>> list(_canonical_shapes((2, 3, 4, 5)))
    [(120,), (2, 60), (6, 20), (24, 5), (2, 3, 20), (2, 12, 5), (6, 4, 5)]
    """
    if _is_canonical(shape):
        yield shape
        return
    for count in range(LARGEST_RANK):
        for cuts in combinations(range(1, len(shape)), count):
            ends = (0, *cuts, len(shape))
            yield tuple(prod(shape[start:end]) for start, end in pairwise(ends))


def _has_channels(graph: Graph, value: Value) -> bool:
    """Whether a value's first dimension must stay the channels: it has dropouts or scales of channels."""
    of_channels = any(dropout.function not in ELEMENTWISE_DROPOUTS for dropout in value.dropouts)
    return of_channels or value.name in graph.affines


def _keeps_channels(layout: Layout) -> bool:
    if not layout.shape or layout.result[0] != layout.shape[0]:
        return False
    channels = layout.shape[0]
    if len(layout.shape) > 1 and len(layout.result) == 1:
        # Numbers without channels have no dropout of channels.
        return False
    pixels = prod(layout.shape[1:])
    numbers = layout.apply(torch.arange(channels * pixels).reshape(1, *layout.shape))
    before = numbers.reshape(channels, pixels) // pixels
    return torch.equal(before, torch.arange(channels)[:, None].expand_as(before))


def _with_order(graph: Graph, index: int, order: Sequence[int]) -> Graph:
    """The graph with another order of the dimensions that a concatenation joins."""
    graph = graph.copy()
    node = graph.nodes[index]
    assert isinstance(node.operator, Concat)
    for name in dict.fromkeys(node.inputs):
        shape = graph.values[name].shape
        move = Move((f"permute(dims={[0, *(dim + 1 for dim in order)]})",))
        _read([node], name, _insert(graph, name, move, tuple(shape[dim] for dim in order)))
    output = graph.values[node.output]
    made = graph.new_value(f"{output.name}_joined", tuple(output.shape[dim] for dim in order), output)
    back = Move((f"permute(dims={[0, *(order.index(dim) + 1 for dim in range(len(order)))]})",))
    node.operator, node.outputs = Concat(order.index(node.operator.dimension)), [made.name]
    graph.nodes.insert(graph.nodes.index(node) + 1, Node(back, [made.name], [output.name]))
    return graph


def _with_layout(graph: Graph, region: Region, layout: Layout) -> Graph:
    """The graph with another layout of a region, with moves at its border."""
    graph = graph.copy()
    nodes = [node for node in graph.nodes if node.operator.elementwise and node.output in region]
    inside = {id(node) for node in nodes}
    moved: set[str] = set()
    for name in sorted(region):
        value, producer = graph.values[name], graph.producer(name)
        outside = [node for node in graph.consumers(name) if id(node) not in inside]
        for_user = layout if value.layout is None else value.layout.then(layout)
        if producer is not None and isinstance(producer.operator, Move):
            producer.operator = Move.of_layout(layout).after(producer.operator)
        elif producer is not None and id(producer) not in inside:
            after = _insert(graph, name, Move.of_layout(layout), layout.result)
            moved.add(after)
            _read(nodes, name, after)
            if name in graph.outputs:
                graph.outputs = [after if output == name else output for output in graph.outputs]
                graph.values[after].layout, value.layout = for_user, None
            continue
        value.shape = layout.result
        if producer is None or name in graph.outputs:
            value.layout = for_user
        if outside:
            _read(outside, name, _insert(graph, name, Move.of_layout(layout.inverse()), layout.shape))
    for node in nodes:
        node.inputs = [
            name if name in region or name in moved else _spread(graph, name, layout) for name in node.inputs
        ]
    return graph


def _read(nodes: list[Node], old: str, new: str) -> None:
    for node in nodes:
        node.inputs = [new if name == old else name for name in node.inputs]


def _spread(graph: Graph, name: str, layout: Layout) -> str:
    """Moves an operand that is broadcast to a layout's shape so that it is broadcast to its result."""
    shape = graph.values[name].shape
    numbers = torch.arange(prod(shape)).reshape(1, *shape).expand(1, *layout.shape)
    numbers = layout.apply(numbers)[0]
    steps = [f"expand({', '.join(map(str, layout.shape))})", *Move.of_layout(layout).steps]
    sides = list(layout.result)
    for dim, side in enumerate(layout.result):
        if side > 1 and torch.equal(numbers, numbers.narrow(dim, 0, 1).expand_as(numbers)):
            steps.append(f"narrow(dim={dim + 1}, start=0, length=1)")
            sides[dim] = 1
    return _insert(graph, name, Move(tuple(steps)), tuple(sides))


def _insert(graph: Graph, source: str, move: Move, shape: Shape) -> str:
    """Inserts a move after the node that makes `source`; returns the name of its result."""
    made = graph.new_value(f"{source}_moved", shape, graph.values[source])
    producer = graph.producer(source)
    places = (place for place, node in enumerate(graph.nodes, 1) if node is producer)
    graph.nodes.insert(next(places, 0), Node(move, [source], [made.name]))
    return made.name


def _simplify(graph: Graph, node: Node) -> None:
    """Writes a permutation with the fewest steps."""
    if not isinstance(node.operator, Move):
        return
    shape = graph.values[node.inputs[0]].shape
    numbers = node.operator.numbers(shape)
    layout = Layout.of_numbers(numbers, shape)
    if layout is not None and len(Move.of_layout(layout).steps) < len(node.operator.steps):
        node.operator = Move.of_layout(layout)
