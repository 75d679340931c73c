"""Functions of one element, and other quantizations of it."""

from dataclasses import dataclass
from typing import Self, get_args

import numpy as np

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import channels, int8_input, output_quantization, quantization, weights_of, zero_point
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Requantize(Layer):
    """All 256 values, x (1, 256)."""

    x: Int8
    x_quantization: Quantization
    y_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        x_quantization = quantization(rng, -12, 4)
        return cls(
            origin=origin,
            x=np.arange(-128, 128, dtype=np.int8).reshape(1, 256),
            x_quantization=x_quantization,
            y_quantization=output_quantization(rng, x_quantization.scale),
        )

    def expected(self) -> Int8:
        return tflm.requantize(self.x, self.x_quantization, self.y_quantization)


class RequantizeDtypes(Requantize):
    """x (1, 256) of int8, int16 or int32 to int8 or int16, at least one of them wider than int8."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        pairs = [
            ("int8", "int16"), ("int16", "int8"), ("int16", "int16"), ("int32", "int8"), ("int32", "int16")
        ]  # fmt: skip
        given, made = pairs[rng.integers(len(pairs))]
        limits, outputs = np.iinfo(given), np.iinfo(made)
        # Most outputs fill the range; of int32 no more than TFLM can shift.
        x_scale = quantization(rng, -8, 0).scale
        reach = 2.0 ** rng.uniform(-3, 3) * outputs.max / limits.max
        y_scale = float(np.float32(x_scale / min(reach, 2.0**20)))
        low, high = limits.min, limits.max
        if given == "int32":
            high = tflm.largest_bound(x_scale / y_scale)
            low = -high
        x = rng.integers(low, high, (1, 256), given, endpoint=True)
        x[0, :3] = low, high, 0
        zeros = [zero_point(rng) if dtype == "int8" else 0 for dtype in (given, made)]
        return cls(origin, x, Quantization(x_scale, zeros[0], given), Quantization(y_scale, zeros[1], made))


@dataclass(frozen=True, eq=False, repr=False)
class Unary(Layer):
    """A function of one element, on all 256 values, x (1, 256); `alpha` is leaky_relu's alone."""

    function: tflm.UnaryFunction
    x: Int8
    x_quantization: Quantization
    y_quantization: Quantization
    alpha: float

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        functions: tuple[tflm.UnaryFunction, ...] = get_args(tflm.UnaryFunction)
        function = functions[rng.integers(len(functions))]
        x_quantization = quantization(rng, -12, 1)
        return cls(
            origin=origin,
            function=function,
            x=np.arange(-128, 128, dtype=np.int8).reshape(1, 256),
            x_quantization=x_quantization,
            y_quantization=tflm.UNARY_OUTPUT.get(function) or output_quantization(rng, x_quantization.scale),
            alpha=float(np.float32(rng.choice([0.01, 0.1, 0.125, 0.25, 0.3, 0.5, 1.5]))),
        )

    def expected(self) -> Int8:
        return tflm.unary(self.function, self.x, self.x_quantization, self.y_quantization, alpha=self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class Prelu(Layer):
    """x (1, H, W, C), slopes alpha (C,) of up to 2^-4 to 4, with one scale."""

    x: Int8
    alpha: Int8
    x_quantization: Quantization
    alpha_scale: float
    y_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (1, *(int(side) for side in rng.integers(1, 6, 2)), channels(rng))
        x_quantization = quantization(rng, -12, 4)
        return cls(
            origin=origin,
            x=int8_input(rng, shape),
            alpha=weights_of(rng, shape[-1:]),
            x_quantization=x_quantization,
            alpha_scale=float(np.float32(2.0 ** rng.uniform(-4, 2) / 127)),
            y_quantization=output_quantization(rng, x_quantization.scale),
        )

    def expected(self) -> Int8:
        return tflm.prelu(self.x, self.alpha, self.x_quantization, self.alpha_scale, self.y_quantization)
