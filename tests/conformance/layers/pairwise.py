"""Elementwise operators of two inputs."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import activation, broadcast, channels, int8_input, output_quantization, quantization
from ..tflm import Activation
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Pairwise(Layer):
    """a and b (N, H, W, C): of one shape, or with length 1 where either is broadcast."""

    a: Int8
    b: Int8
    a_quantization: Quantization
    b_quantization: Quantization
    y_quantization: Quantization
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (1, int(rng.integers(1, 6)), int(rng.integers(1, 6)), channels(rng))
        low, exact = int(rng.choice([-10, -5, -5, -5])), bool(rng.random() < 1 / 3)
        a_quantization, b_quantization = (quantization(rng, low, -3, exact=exact) for _ in range(2))
        return cls(
            origin=origin,
            a=int8_input(rng, broadcast(rng, shape)),
            b=int8_input(rng, broadcast(rng, shape)),
            a_quantization=a_quantization,
            b_quantization=b_quantization,
            y_quantization=cls.output(rng, a_quantization, b_quantization, low, exact),
            activation=activation(rng),
        )

    @classmethod
    def output(
        cls, rng: np.random.Generator, a: Quantization, b: Quantization, low: int, exact: bool
    ) -> Quantization:
        """An output quantization for inputs of these, whose scales begin at 2^low."""
        if rng.random() < 0.25:
            return output_quantization(rng, max(a.scale, b.scale), exact=exact)
        return quantization(rng, low, 0, exact=exact)

    @classmethod
    @abstractmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        """TFLM's operator."""

    def expected(self) -> Int8:
        return self.oracle()(
            self.a,
            self.b,
            self.a_quantization,
            self.b_quantization,
            self.y_quantization,
            activation=self.activation,
        )


class Add(Pairwise):
    """ADD."""

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.add


class Sub(Pairwise):
    """SUB."""

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.sub


class Mul(Pairwise):
    """MUL; most outputs fill the range."""

    @classmethod
    def output(
        cls, rng: np.random.Generator, a: Quantization, b: Quantization, low: int, exact: bool
    ) -> Quantization:
        multiplier = float(2.0 ** (rng.integers(-16, 3) if exact else rng.uniform(-16, 3)))
        scale = float(np.float32(a.scale * b.scale / multiplier))
        return Quantization(scale, quantization(rng, low, 0).zero_point)

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.mul


class AddInt16(Add):
    """`Add` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)


class SubInt16(Sub):
    """`Sub` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)


class MulInt16(Mul):
    """`Mul` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        return super().random(origin, rng).widened(rng)
