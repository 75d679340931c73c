"""Products of matrices: with weights, and of two values."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from .. import tflm
from ..model import Float32, Int8, Int16, Int32, Int64, Quantization
from ..sampling import activation, channels, input_of, int8_input, quantization, weighted
from ..tflm import Activation
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class FullyConnected(Layer):
    """x (N, I), weights (O, I), bias (O,), weight_scales (O,), or (1,) for all."""

    dtype: ClassVar[str] = "int8"

    x: Int8 | Int16
    weights: Int8
    bias: Int32 | Int64
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        inputs = int(rng.choice([1, 2, 3, 4, 5, 7, 16, 33, 64, 130, 640]))
        parameters = weighted(rng, (channels(rng), inputs), cls.dtype)
        return cls(
            origin=origin,
            x=input_of(cls.dtype, rng, (int(rng.choice([1, 1, 2, 3])), inputs)),
            **vars(parameters),
            activation=activation(rng),
        )

    def expected(self) -> Int8 | Int16:
        return tflm.fully_connected(
            self.x,
            self.weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.y_quantization,
            activation=self.activation,
        )


class FullyConnectedInt16(FullyConnected):
    """`FullyConnected` of int16, with an int64 bias."""

    dtype = "int16"


@dataclass(frozen=True, eq=False, repr=False)
class Matmul(Layer):
    """a (1, B, M, K) and b (1, B, K, N), or (1, B, N, K) if it is transposed; most outputs fill the range."""

    a: Int8
    b: Int8
    a_quantization: Quantization
    b_quantization: Quantization
    y_quantization: Quantization
    transpose_b: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        batch, rows, columns = (int(rng.choice([1, 1, 2, 3])), channels(rng), int(rng.integers(1, 40)))
        inner = int(rng.choice([1, 2, 3, 4, 7, 16, 33, 64, 130, 640]))
        transpose_b, exact = bool(rng.random() < 0.5), bool(rng.random() < 1 / 3)
        a_quantization, b_quantization = (quantization(rng, -10, -3, exact=exact) for _ in range(2))
        # 2^11 is about the standard deviation of a product of int8 numbers, 2^14 that of extreme ones.
        spread = 2.0**12 * inner**0.5
        low, high = ((-5, 2), (-5, 2), (-5, 2), (-12, 6))[rng.integers(4)]
        exponent = float(rng.integers(low, high) if exact else rng.uniform(low, high))
        multiplier = 2.0 ** (round(np.log2(64 / spread)) + exponent)
        scale = float(np.float32(a_quantization.scale * b_quantization.scale / multiplier))
        return cls(
            origin=origin,
            a=int8_input(rng, (1, batch, rows, inner)),
            b=int8_input(rng, (1, batch, *((columns, inner) if transpose_b else (inner, columns)))),
            a_quantization=a_quantization,
            b_quantization=b_quantization,
            y_quantization=Quantization(scale, quantization(rng, -8, 0).zero_point),
            transpose_b=transpose_b,
        )

    def expected(self) -> Int8:
        return tflm.matmul(
            self.a[0],
            self.b[0],
            self.a_quantization,
            self.b_quantization,
            self.y_quantization,
            transpose_b=self.transpose_b,
        )[None]
