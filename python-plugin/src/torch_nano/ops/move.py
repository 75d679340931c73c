"""Data movement: slices, permutations, padding with zeros, repetition, and reshapes between them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arguments import shown
from ..arithmetic.layout import Layout, Shape, device_shape, to_device
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import BATCH_SIZE, Call, ParameterName, UnsupportedNodeError
from ..ir.graph import Graph, Node
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._steps import CALLS, EXPANSIONS, RESHAPES, Step, element_numbers, name_of, run_steps, step
from .fully_connected import FullyConnected

aten = torch.ops.aten


@dataclass(frozen=True)
class Move(Operator):
    """Each element of the output is an element of the input, or zero.

    The map is given by a sequence of ATen calls on a tensor with batch, as text. Running them on the
    elements' indices yields the map for the device.

    >>> Layer(Move(("flip(dims=[1])", "reshape(3, 1)")), [torch.tensor([[1.0, 2.0, 3.0]])]).float_run()
    (tensor([[[3.],
             [2.],
             [1.]]]),)
    """

    name = "move"
    # A graph may move values that nano-core's kernels cannot.

    steps: tuple[str, ...] = ()

    @classmethod
    def reshape(cls, shape: Shape) -> Move:
        """The reshape of a sample to `shape`."""
        return cls((f"reshape({', '.join(map(str, shape))})",))

    @classmethod
    def of_layout(cls, layout: Layout) -> Move:
        """The move from a layout's shape to its result."""
        steps: list[str] = []
        if layout.factors != layout.shape:
            steps += cls.reshape(layout.factors).steps
        if layout.dims != tuple(range(len(layout.dims))):
            steps.append(f"permute(dims={[0, *(dim + 1 for dim in layout.dims)]})")
        if tuple(layout.factors[dim] for dim in layout.dims) != layout.result or not steps:
            steps += cls.reshape(layout.result).steps
        return cls(tuple(steps))

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [*RESHAPES, *EXPANSIONS, *CALLS]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        first, *further = call.arguments
        value = call.arguments[first]
        if not isinstance(value, Value):
            raise UnsupportedNodeError("a parameter is moved", "move it once, outside of forward")
        shape = call.output_shapes[0]
        if call.target in RESHAPES:
            if prod(value.shape) != prod(shape):
                raise UnsupportedNodeError(
                    f"it mixes the samples of a batch: {value.shape} becomes {shape} per sample"
                )
            return cls.reshape(shape), [value], {}
        if call.target in EXPANSIONS:
            operator = cls((f"expand({', '.join(map(str, shape))})",))
        else:
            defaults = {argument.name: argument.default_value for argument in call.target._schema.arguments}
            given = {name: _literal(call, call.arguments[name]) for name in further}
            # sys.maxsize as the end of a slice is the default, too.
            usual = {name: (default, sys.maxsize) for name, default in defaults.items()}
            said = [f"{name}={item!r}" for name, item in given.items() if item not in usual[name]]
            operator = cls((f"{name_of(call.target)}({', '.join(said)})",))
        # Checking the first of several results is enough.
        tested = operator.part(0) if call.returns_several else operator
        try:
            element_numbers(tested.steps, value.shape)
        except ValueError as error:
            raise UnsupportedNodeError(str(error)) from error
        if not call.returns_several and operator.is_reshape(value.shape):
            operator = cls.reshape(shape)
        return operator, [value], {}

    # Cached here, as torch.compile does not trace into functions with lru_cache.
    @cached_property
    def _calls(self) -> tuple[Step, ...]:
        return tuple(map(step, self.steps))

    def part(self, index: int) -> Move:
        """The move to result `index`, if the last call returns several results."""
        return Move((*self.steps[:-1], f"{self.steps[-1]}[{index}]"))

    def after(self, first: Move) -> Move:
        """Composes two moves: `first`, then this one."""
        reshaped = [
            steps[end].startswith("reshape(") for steps, end in ((first.steps, -1), (self.steps, 0)) if steps
        ]
        before = first.steps[:-1] if reshaped == [True, True] else first.steps
        return Move((*before, *self.steps))

    def numbers(self, shape: Shape) -> Tensor:
        """For each element of the output, its index in an input of `shape`; -1 for a zero."""
        return element_numbers(self.steps, shape)

    def is_reshape(self, shape: Shape) -> bool:
        """Whether it keeps all elements in torch's order."""
        return _counts_up(self.numbers(shape).flatten(), prod(shape))

    def is_permutation(self, shape: Shape) -> bool:
        """Whether each element of the input is exactly one element of the output."""
        return _counts_up(self.numbers(shape).flatten().sort().values, prod(shape))

    def adds_zeros(self, shape: Shape) -> bool:
        """Whether the output has padded zeros."""
        return bool((self.numbers(shape) < 0).any())

    def keeps_bytes(self, shape: Shape) -> bool:
        """Whether the output's bytes on the device equal the input's, in the same order."""
        return _counts_up(_device_numbers(self.steps, shape), prod(shape))

    def float_run(self, layer: Layer) -> Tensor:
        return run_steps(self._calls, layer.input)

    def train_run(self, layer: Layer) -> Tensor:
        return self.float_run(layer)

    def integer_run(self, layer: Layer) -> Tensor:
        x = layer.input
        numbers = self.numbers(tuple(x.shape[1:])).to(x.device)
        elements: Tensor = x.flatten(1)[:, numbers.clamp(min=0)]
        return elements.masked_fill(numbers < 0, layer.output_quantization.zero_point)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        (shape,) = layer.input_shapes
        return dict(zip(("rows", "columns", "channels"), _tables(self.steps, shape), strict=True))

    def attributes(self, layer: Layer) -> dict[str, int]:
        (shape,) = layer.input_shapes
        first, pitch = _part(self.steps, shape)
        lengths = {name: len(table) for name, table in self.quantize(layer).items()}
        return {**lengths, "first": first, "pitch": pitch}


def is_free(graph: Graph, node: Node) -> bool:
    """Whether a node is a move that is free on the device: its readers read the input's bytes directly."""
    if not isinstance(node.operator, Move):
        return False
    before, after = graph.values[node.inputs[0]].shape, graph.values[node.output].shape
    if not node.operator.keeps_bytes(before):
        return False
    any_shape = all(isinstance(reader.operator, FullyConnected) for reader in graph.consumers(node.output))
    return any_shape or device_shape(before) == device_shape(after)


def _literal(call: Call, argument: Any) -> Any:
    """Converts a call's argument to a Python literal: constant index tensors to lists."""
    if isinstance(argument, list | tuple):
        return [_literal(call, item) for item in argument]
    if isinstance(argument, ParameterName):
        indices = call.tensors[argument]
        if indices.is_floating_point():
            raise UnsupportedNodeError(f"its indices {argument!r} are of {indices.dtype}", "use integers")
        return indices.tolist()
    if argument is BATCH_SIZE:
        raise UnsupportedNodeError("an argument depends on the batch size")
    if isinstance(argument, Value):
        raise UnsupportedNodeError(
            "what it moves depends on the numbers of the input", "use constant indices"
        )
    return argument


def _counts_up(numbers: Tensor, count: int) -> bool:
    return torch.equal(numbers, torch.arange(count))


@lru_cache(maxsize=128)
def _device_numbers(steps: tuple[str, ...], shape: Shape) -> Tensor:
    """int64 [elements]: as :func:`element_numbers`, with indices and elements in the device's order."""
    moved = element_numbers(steps, shape)
    places = to_device(torch.arange(prod(shape)).reshape(1, *shape)).flatten().argsort()
    return to_device(torch.where(moved < 0, -1, places[moved.clamp(min=0)])[None]).flatten()


@lru_cache(maxsize=128)
def _tables(steps: tuple[str, ...], shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """nano-core's three tables: one per axis if the map is their sum, else one table of all elements."""
    numbers = _device_numbers(steps, shape)
    cube = numbers.reshape(device_shape(tuple(element_numbers(steps, shape).shape)))
    tables = _sums(cube) or (torch.zeros(1), torch.zeros(1), numbers)
    rows, columns, channels = (table.to(torch.int32) for table in tables)
    return rows, columns, channels


def _part(steps: tuple[str, ...], shape: Shape) -> tuple[int, int]:
    """The output's position in the input, in the device's order, if it is a strided part of it.

    Returns the index of the first element, and the elements from one pixel to the next; (0, 0) if it is not.
    """
    _, _, channels = device_shape(tuple(element_numbers(steps, shape).shape))
    pixels = _device_numbers(steps, shape).reshape(-1, channels)
    first = int(pixels[0, 0])
    pitch = int(pixels[1, 0]) - first if len(pixels) > 1 else channels
    part = first + torch.arange(len(pixels))[:, None] * pitch + torch.arange(channels)
    return (first, pitch) if first >= 0 and pitch >= channels and torch.equal(pixels, part) else (0, 0)


def _sums(cube: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Splits a map [rows, columns, channels] into one table per axis whose sums are the map, if possible.

    >>> _sums(torch.tensor([[[-1, 4, 5]], [[-1, 0, 1]]]))
    (tensor([4, 0]), tensor([0]), tensor([-1,  0,  1]))
    """
    zero = cube < 0
    rows, columns, channels = zero.all(2).all(1), zero.all(2).all(0), zero.all(1).all(0)
    if not torch.equal(zero, rows[:, None, None] | columns[:, None] | channels):
        return None
    if bool(zero.all()):
        return rows.long().neg(), columns.long().neg(), channels.long().neg()
    i, j, k = (int((~empty).nonzero()[0]) for empty in (rows, columns, channels))
    parts = cube[:, j, k], cube[i, :, k] - cube[i, j, k], cube[i, j, :] - cube[i, j, k]
    taken = [part[~empty] for part, empty in zip(parts, (rows, columns, channels), strict=True)]
    # Negative entries are reserved for zeros: the lows of the other tables are added to the rows' entries.
    lows = [0, int(taken[1].min()), int(taken[2].min())]
    lows[0] = -lows[1] - lows[2]
    tables = [
        torch.where(empty, -1, part - low)
        for part, low, empty in zip(parts, lows, (rows, columns, channels), strict=True)
    ]
    sums = tables[0][:, None, None] + tables[1][:, None] + tables[2]
    if not torch.equal(torch.where(zero, -1, sums), cube):
        return None
    return tables[0], tables[1], tables[2]


_call = Definition(Move)


@functional
def move(x: Tensor, quantization: Quantization, steps: Sequence[str]) -> Tensor:
    """Data movement: the quantization is unchanged, and padding is with the real 0.

    The gradient of each element flows to the input's element that it comes from.

    Args:
        x: float32 [N, ...] that holds integers of the quantization's dtype.
        steps: a sequence of calls of ``torch.ops.aten`` on a tensor with batch, with named arguments:
            ``"slice.Tensor(dim=2, step=2)"``, ``"pad(pad=[1, 1])"``; ``"reshape(4, 3)"`` takes the sides of a
            sample.

    Returns:
        float32 [N, ...] that holds such integers.

    Raises:
        InputError: x has another dtype, or values that are not such integers; a step is not such a call, or
            does not accept the shape.

    >>> move(torch.tensor([[1.0, 2.0, 3.0]]), Quantization(0.5, -7), ["flip(dims=[1])", "pad(pad=[1, 0])"])
    tensor([[-7.,  3.,  2.,  1.]])
    """
    if not torch.compiler.is_compiling():
        if not isinstance(steps, list | tuple) or not all(isinstance(text, str) for text in steps):
            raise InputError(f"move: steps is {shown(steps)}; expected a list of texts, ['flip(dims=[1])']")
        _call.check([x], [quantization])
        try:
            element_numbers(tuple(steps), tuple(x.shape[1:]))
        except ValueError as error:
            raise InputError(f"move: {error}") from error
    operator = Move(tuple(steps))
    return _call(operator, [x], [quantization])
