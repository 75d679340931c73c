"""Layers that select by the numbers of a tensor."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import tflm
from ..model import Int8, Int32, Quantization
from ..sampling import channels, int8_input, quantization
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Argmax(Layer):
    """x (N, H, W, C), over the last dimension; a third of them have few different numbers, so many ties."""

    x: Int8
    quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (1, *(int(side) for side in rng.integers(1, 6, 2)), channels(rng) + 1)
        x = int8_input(rng, shape)
        if rng.random() < 1 / 3:
            low = int(rng.integers(-128, 125))
            x = rng.integers(low, low + 3, shape, np.int8)
        return cls(origin, x, quantization(rng, -12, 4))

    def expected(self) -> Int32:
        return tflm.argmax(self.x, self.quantization)[..., None]


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """Rows of a table (rows, C) by indices x (1, N)."""

    x: Int32
    table: Int8
    quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        rows = int(rng.choice([1, 2, *rng.integers(3, 400, 3)]))
        x = rng.integers(0, rows, (1, int(rng.integers(1, 20))), np.int32)
        return cls(origin, x, int8_input(rng, (rows, channels(rng))), quantization(rng, -12, 4))

    def expected(self) -> Int8:
        return tflm.gather(self.table, self.x.ravel(), self.quantization)[None]
