"""Interpolation."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import tflm
from ..model import Int8, Quantization
from ..sampling import channels, int8_input, quantization
from ..tflm import Pair
from .base import Layer, Origin


@dataclass(frozen=True, eq=False, repr=False)
class ResizeBilinear(Layer):
    """x (N, H, W, C), interpolated to `size`; half of the sizes are multiples or parts of the input's."""

    x: Int8
    quantization: Quantization
    size: Pair
    align_corners: bool
    half_pixel_centers: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        sides, size = ([int(side) for side in rng.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17], 2)] for _ in "xy")
        if rng.random() < 0.5:
            factors = rng.choice([1, 2, 3, 4, 8], 2).tolist()
            size = [side * factor for side, factor in zip(sides, factors, strict=True)]
            if rng.random() < 0.25:
                sides, size = size, sides
        if rng.random() < 0.25:
            sides[0] = size[0] = 1
        align_corners, half_pixel_centers = ((False, True), (True, False), (False, False))[rng.integers(3)]
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 2])), *sides, channels(rng))),
            quantization=quantization(rng, -12, 4),
            size=(size[0], size[1]),
            align_corners=align_corners,
            half_pixel_centers=half_pixel_centers,
        )

    def expected(self) -> Int8:
        return tflm.resize_bilinear(
            self.x,
            self.quantization,
            self.size,
            align_corners=self.align_corners,
            half_pixel_centers=self.half_pixel_centers,
        )
