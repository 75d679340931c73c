"""Scale, zero point and dtype of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..errors import QuantizationError

#: A value's integer type; "int16" and "int32" have zero point 0.
Dtype = Literal["int8", "int16", "int32"]

_TORCH_DTYPES: dict[str, torch.dtype] = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32}
_BOUNDS = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Quantization:
    """Quantization of one tensor: ``real = scale * (q - zero_point)``.

    The scale is rounded to float32, which is what an image stores.

    Raises:
        QuantizationError: the scale is not a positive float32, the zero point is not one of the dtype, or the
            dtype is unknown.

    >>> Quantization(0.5, -128).range
    (0.0, 127.5)
    >>> Quantization(0.5, 0, "int16").bounds
    (-32768, 32767)
    """

    scale: float
    zero_point: int
    dtype: str = "int8"

    def __post_init__(self) -> None:
        if self.dtype not in _TORCH_DTYPES:
            raise QuantizationError(f"there is no dtype {self.dtype!r}; expected {', '.join(_TORCH_DTYPES)}")
        scale = float(np.float32(self.scale))
        low, high = self.bounds if self.dtype == "int8" else (0, 0)
        if not 0.0 < scale < math.inf or not low <= self.zero_point <= high:
            zero_points = f"{low} to {high}" if low < high else f"0, as it is for {self.dtype}"
            raise QuantizationError(
                f"quantization with scale {self.scale} and zero point {self.zero_point}: "
                f"the scale must be a positive finite float32, the zero point {zero_points}"
            )
        object.__setattr__(self, "scale", scale)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as a torch.dtype."""
        return _TORCH_DTYPES[self.dtype]

    @property
    def training_dtype(self) -> torch.dtype:
        """The float dtype of training, which holds every integer without its zero point exactly."""
        return torch.float64 if self.dtype == "int32" else torch.float32

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        return _BOUNDS[self.dtype]

    @property
    def steps(self) -> tuple[int, int]:
        """The smallest and the largest integer without the zero point."""
        low, high = self.bounds
        return low - self.zero_point, high - self.zero_point

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real number."""
        low, high = self.steps
        return self.scale * low, self.scale * high
