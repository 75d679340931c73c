"""Layers that only move data, of int8 and int16."""

from dataclasses import dataclass
from typing import Literal, Self, get_args, get_type_hints

import numpy as np

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import channels, int8_input, quantization
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Layer):
    """Inputs that are put together to x (1, H, W, C); `axis` is 0 for the height, 2 for the channels."""

    x: Int8
    quantization: Quantization
    axis: int
    sizes: tuple[int, ...]

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = [int(rng.integers(1, 6)), int(rng.integers(1, 6)), channels(rng)]
        axis = int(rng.integers(3))
        sizes = tuple(int(size) for size in rng.integers(1, 9, int(rng.integers(1, 7))))
        shape[axis] = sum(sizes)
        x = int8_input(rng, (1, *shape))
        return cls(origin=origin, x=x, quantization=quantization(rng, -8, 0), axis=axis, sizes=sizes)

    def inputs(self) -> list[Int8]:
        """The inputs, (1, H, W, C) each."""
        return np.split(self.x, np.cumsum(self.sizes)[:-1], self.axis + 1)

    def expected(self) -> Int8:
        return tflm.concat(self.inputs(), self.quantization, self.axis + 1)


@dataclass(frozen=True, eq=False, repr=False)
class Move(Layer):
    """x (N, H, W, C), moved by one of TFLite's operators with these numbers, which leave the batch alone."""

    x: Int8
    quantization: Quantization
    operator: Literal["pad", "transpose", "strided_slice", "split", "resize_nearest"]
    numbers: tuple[tuple[int, ...], ...]

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        operators = get_args(get_type_hints(cls)["operator"])
        operator = operators[rng.integers(len(operators))]
        sides = [int(side) for side in rng.integers(1, 9, 2)]
        shape = (int(rng.choice([1, 1, 2])), *sides, channels(rng))
        if operator == "pad":
            numbers = ((0, 0), *((int(a), int(b)) for a, b in rng.integers(0, 4, (3, 2))))
        elif operator == "transpose":
            numbers = ((0, *(int(i) for i in 1 + rng.permutation(3))),)
        elif operator == "strided_slice":
            starts = [int(rng.integers(0, size)) for size in shape[1:]]
            ends = [
                int(rng.integers(start + 1, size + 1)) for start, size in zip(starts, shape[1:], strict=True)
            ]
            numbers = (0, *starts), (shape[0], *ends), (1, *(int(step) for step in rng.integers(1, 4, 3)))
        elif operator == "split":
            axis, parts = int(rng.integers(1, 4)), int(rng.integers(1, 5))
            shape = tuple(size * parts if i == axis else size for i, size in enumerate(shape))
            numbers = ((axis, parts, int(rng.integers(parts))),)
        else:
            numbers = (tuple(int(size) for size in rng.integers(1, 20, 2)),)
        return cls(origin, int8_input(rng, shape), quantization(rng, -12, 4), operator, numbers)

    def expected(self) -> Int8:
        x, of_both, numbers = self.x, self.quantization, self.numbers
        match self.operator:
            case "pad":
                return tflm.pad(x, of_both, [(before, after) for before, after in numbers])
            case "transpose":
                return tflm.transpose(x, of_both, *numbers)
            case "strided_slice":
                return tflm.strided_slice(x, of_both, *numbers)
            case "split":
                return tflm.split(x, of_both, *numbers[0])
            case "resize_nearest":
                return tflm.resize_nearest(x, of_both, (numbers[0][0], numbers[0][1]))


class MoveInt16(Move):
    """`Move` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)


class ConcatInt16(Concat):
    """`Concat` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)
