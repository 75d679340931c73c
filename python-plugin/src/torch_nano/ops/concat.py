"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from .. import _native
from ..arithmetic.layout import Shape, channels_last
from ..ir.call import Call, Moved, MovedBack, Steps, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value

aten = torch.ops.aten
_, _MOST_INPUTS = _native.operators()["concat"]["inputs"]
#: The largest number of dimensions of a value on the device, without batch.
_LARGEST_RANK = 3


@dataclass(frozen=True)
class Concat(Operator):
    """Concatenates the inputs along a dimension; all values have one quantization.

    On integers of one quantization this is ``torch.cat``, so ``torch_nano.functional`` has no such function.

    >>> Layer(Concat(0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]).float_run()
    (tensor([[1., 2., 3.]]),)
    """

    name = "concat"

    #: The dimension in shapes without batch: 0 for the channels.
    dimension: int

    @property
    def pixelwise(self) -> bool:
        return self.dimension == 0

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.cat.default,
            aten.column_stack.default,
            aten.concat.default,
            aten.concatenate.default,
            aten.dstack.default,
            aten.hstack.default,
            aten.stack.default,
            aten.vstack.default,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        values = call.inputs("tensors")
        ranks = {len(value.shape) for value in values}
        if len(ranks) > 1:
            raise UnsupportedNodeError(
                f"its tensors have different numbers of dimensions: {[value.shape for value in values]}",
                "give them one, by unsqueeze",
            )
        if len(values) > _MOST_INPUTS:
            raise UnsupportedNodeError(
                f"it has {len(values)} inputs; nano-core takes at most {_MOST_INPUTS}",
                "concatenate some of them first",
            )
        rank = ranks.pop() + 1
        # column_stack and dstack add their dimension where there is none.
        stacks = call.function == "stack" or (call.function, rank) in (("column_stack", 1), ("dstack", 2))
        rank += stacks
        dimension = {"vstack": 0, "hstack": 1, "column_stack": 1, "dstack": 2}.get(call.function)
        if dimension is None:
            dimension = call.arguments["dim"] % rank
        if not 0 < dimension < rank:
            raise UnsupportedNodeError(
                f"it goes along dimension {dimension} of {rank}, where the batch is dimension 0",
                "concatenate along another dimension",
            )
        if stacks:
            return _stack(values, dimension)
        if rank - 1 > _LARGEST_RANK:
            return _of_high_rank(values, dimension, call.output_shape)
        return cls(dimension - 1), [*values], {}

    def attributes(self, layer: Layer) -> dict[str, int]:
        # The axis counts height, width, channels; a shape with two dimensions is channels, width.
        spatial = {2: (1,), 3: (0, 1)}.get(len(layer.input_shapes[0]), ())
        return {"axis": (2, *spatial)[self.dimension]}

    def float_run(self, layer: Layer) -> Tensor:
        return torch.cat(list(layer.inputs), self.dimension + 1)

    def integer_run(self, layer: Layer) -> Tensor:
        return self.float_run(layer)

    def train_run(self, layer: Layer) -> Tensor:
        return channels_last(self.float_run(layer))


_Moved = tuple[MovedBack, list[Value | Moved], dict[str, str]]


def _stack(values: Sequence[Value], dimension: int) -> _Moved:
    """A stack along a new dimension, counted with the batch.

    Each input is a row as it lies on the device, [channels, 1, all positions]; the result is moved to the new
    dimension.
    """
    channels, *sides = values[0].shape or (1,)
    moved = [Moved(value, (_reshape((channels, 1, prod(sides))),)) for value in values]
    steps: Steps = (_reshape((channels, len(values), *sides)),)
    if not values[0].shape:
        steps = (_reshape((len(values),)),)
    elif dimension != 2:
        order = [0, 1, *range(3, len(sides) + 3)]
        order.insert(dimension, 2)
        steps = (*steps, f"permute(dims={order})")
    return MovedBack(Concat(1), (steps,)), [*moved], {}


def _of_high_rank(values: Sequence[Value], dimension: int, shape: Shape) -> _Moved:
    """A concatenation of values with more than three dimensions: those before and after it are joined."""

    def sides(shape: Shape) -> Shape:
        before, size, after = shape[: dimension - 1], shape[dimension - 1], shape[dimension:]
        return (*((prod(before),) if before else ()), size, prod(after))

    moved = [Moved(value, (_reshape(sides(value.shape)),)) for value in values]
    return MovedBack(Concat(min(dimension - 1, 1)), ((_reshape(shape),),)), [*moved], {}


def _reshape(sides: Shape) -> str:
    return f"reshape({', '.join(map(str, sides))})"
