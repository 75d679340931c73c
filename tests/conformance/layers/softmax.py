"""Softmax, also masked, and its logarithm."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import int8_input, quantization
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Layer):
    """x (N, C), over the last dimension; the output has `tflm.SOFTMAX_OUTPUT`."""

    x: Int8
    x_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 10, 33, 100, 511])))
        low, high = ((-9, 0), (-9, 0), (-25, -9), (0, 8))[rng.integers(4)]
        return cls(origin=origin, x=int8_input(rng, shape), x_quantization=quantization(rng, low, high))

    def expected(self) -> Int8:
        return tflm.softmax(self.x, self.x_quantization)


@dataclass(frozen=True, eq=False, repr=False)
class LogSoftmax(Layer):
    """x (N, C), over the last dimension; the output has `tflm.LOG_SOFTMAX_OUTPUT`."""

    x: Int8
    x_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 10, 33, 100, 511, 2048])))
        low, high = ((-9, -3), (-9, -3), (-24, -9), (-3, 5))[rng.integers(4)]
        return cls(origin=origin, x=int8_input(rng, shape), x_quantization=quantization(rng, low, high))

    def expected(self) -> Int8:
        return tflm.log_softmax(self.x, self.x_quantization)


@dataclass(frozen=True, eq=False, repr=False)
class MaskedSoftmax(Layer):
    """x (1, H, R, C), over the channels that the mask (R, C) leaves; 0 elsewhere."""

    x: Int8
    x_quantization: Quantization
    mask: npt.NDArray[np.bool_]

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        height, rows, channels = (int(rng.integers(1, most)) for most in (4, 7, 70))
        mask = rng.random((rows, channels)) < rng.choice([0.2, 0.5, 0.9])
        mask[np.arange(rows), rng.integers(channels, size=rows)] = True
        low, high = ((-9, 0), (-9, 0), (-25, -9), (0, 8))[rng.integers(4)]
        x = int8_input(rng, (1, height, rows, channels))
        return cls(origin, x, quantization(rng, low, high), mask)

    def expected(self) -> Int8:
        """TFLM's softmax of what each row leaves."""
        y = np.full_like(self.x, tflm.SOFTMAX_OUTPUT.zero_point)
        for row, mask in enumerate(self.mask):
            y[..., row, mask] = tflm.softmax(self.x[0, :, row, mask].T.copy(), self.x_quantization)
        return y
