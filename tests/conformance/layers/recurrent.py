"""Recurrent layers."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import tflm
from ..model import Float32, Int8, Int32, Quantization
from ..sampling import int8_input, quantization, weights_of
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class Lstm(Layer):
    """x (1, T, F); of the gates in torch's order weights (4, H, F), recurrent_weights (4, H, H), bias (4, H),
    and a scale each.

    The gates' sums have a standard deviation of 1/8 to 32 in real numbers: from gates that are half open to
    saturated ones and sums beyond int16.
    """

    x: Int8
    weights: Int8
    recurrent_weights: Int8
    bias: Int32
    x_quantization: Quantization
    weight_scales: Float32
    recurrent_weight_scales: Float32
    y_quantization: Quantization
    cell_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        features, units, steps = (int(rng.integers(1, most)) for most in (25, 25, 13))
        exact = bool(rng.random() < 1 / 4)
        x_quantization = quantization(rng, -10, 3, exact=exact)
        y_quantization = quantization(rng, -12, -5, exact=exact)
        weights, recurrent_weights = (weights_of(rng, (4, units, length)) for length in (features, units))
        scales = [
            # 74 is the standard deviation of uniform int8 data.
            (2.0 ** rng.uniform(-3, 5, 4) / (of.scale * 74 * 74 * length**0.5)).astype(np.float32)
            for of, length in ((x_quantization, features), (y_quantization, units))
        ]
        if exact:
            scales = [np.exp2(np.round(np.log2(scale))).astype(np.float32) for scale in scales]
        steps_of_bias = x_quantization.scale * scales[0].astype(np.float64)[:, None]
        spread = float(rng.choice([0, 1, 8]))
        return cls(
            origin=origin,
            x=int8_input(rng, (1, steps, features)),
            weights=weights,
            recurrent_weights=recurrent_weights,
            bias=np.round(spread * rng.normal(size=(4, units)) / steps_of_bias).astype(np.int32),
            x_quantization=x_quantization,
            weight_scales=scales[0],
            recurrent_weight_scales=scales[1],
            y_quantization=y_quantization,
            # Cells of up to 2^-6 to 16.
            cell_quantization=Quantization(2.0 ** int(rng.integers(-21, -10)), 0, "int16"),
        )

    def expected(self) -> Int8:
        return tflm.lstm(
            self.x,
            self.weights,
            self.recurrent_weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.recurrent_weight_scales,
            self.y_quantization,
            self.cell_quantization,
        )
