"""Scale and zero point of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError


@dataclass(frozen=True)
class Quantization:
    """int8 quantization of one tensor: ``real = scale * (q - zero_point)``.

    The scale is rounded to float32, which is what an image stores.

    Raises:
        QuantizationError: the scale is not a positive float32, or the zero point is not an int8.

    >>> Quantization(0.5, -128).range
    (0.0, 127.5)
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        scale = float(np.float32(self.scale))
        if not 0.0 < scale < math.inf or not -128 <= self.zero_point <= 127:
            raise QuantizationError(
                f"quantization with scale {self.scale} and zero point {self.zero_point}: "
                "the scale must be a positive finite float32, the zero point -128 to 127"
            )
        object.__setattr__(self, "scale", scale)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real number that int8 can hold."""
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)
