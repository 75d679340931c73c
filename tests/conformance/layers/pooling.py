"""Pools."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import activation, channels, int8_input, quantization, window
from ..tflm import Activation, Pair
from .base import Layer, Origin, Padding


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Layer):
    """x (N, H, W, C); the padding is smaller than the kernel."""

    x: Int8
    quantization: Quantization
    kernel: Pair
    stride: Pair
    padding: Padding
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=False)
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, channels(rng))),
            quantization=quantization(rng, -12, 4),
            kernel=area.kernel,
            stride=area.stride,
            padding=area.padding,
            activation=activation(rng),
        )

    def expected(self) -> Int8:
        return tflm.max_pool(
            self.x,
            self.quantization,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool(MaxPool):
    """As `MaxPool`, a third of them global; `count_padding` counts the padding as zeros of the reals."""

    count_padding: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=False)
        whole = rng.random() < 1 / 3
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, channels(rng))),
            quantization=quantization(rng, -12, 4),
            kernel=area.size if whole else area.kernel,
            stride=(1, 1) if whole else area.stride,
            padding=(0, 0, 0, 0) if whole else area.padding,
            activation=activation(rng),
            count_padding=bool(rng.random() < 0.5),
        )

    def expected(self) -> Int8:
        return tflm.average_pool(
            self.x,
            self.quantization,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            count_padding=self.count_padding,
            activation=self.activation,
        )


class MaxPoolInt16(MaxPool):
    """`MaxPool` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)


class AveragePoolInt16(AveragePool):
    """`AveragePool` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)
