"""Scale, zero point and dtype of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import QuantizationError
from .fixed_point import round_half_away

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

    def to_power_of_two(self) -> Quantization:
        """The quantization with the smallest power of two that is no less than its scale.

        >>> Quantization(0.3, 0, "int16").to_power_of_two()
        Quantization(scale=0.5, zero_point=0, dtype='int16')
        """
        mantissa, exponent = math.frexp(self.scale)
        return self if mantissa == 0.5 else replace(self, scale=2.0**exponent)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as a torch.dtype."""
        return _TORCH_DTYPES[self.dtype]

    @property
    def bits(self) -> int:
        """The number of bits of an integer."""
        return self.torch_dtype.itemsize * 8

    @property
    def training_dtype(self) -> torch.dtype:
        """The float dtype of training, which holds every integer without its zero point exactly."""
        return torch.float64 if self.dtype == "int32" else torch.float32

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        return _BOUNDS[self.dtype]

    @property
    def holds_indices(self) -> bool:
        """Whether the integers are indices, of classes or of rows of a table: int32 with scale 1, as in
        nano-core's ``Value::holds_indices``.
        """
        return self.dtype == "int32" and self.scale == 1.0

    @property
    def levels(self) -> tuple[int, int]:
        """The smallest and the largest integer without the zero point."""
        low, high = self.bounds
        return low - self.zero_point, high - self.zero_point

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real number."""
        low, high = self.levels
        return self.scale * low, self.scale * high


#: The quantization of indices.
INDICES = Quantization(1.0, 0, "int32")

#: A channel's factor is at least this part of the scale of its value: numbers of the channel below 2^117 then
#: change no integer, and its scale and offset are float32.
_LEAST_FACTOR = 2.0**-118


@dataclass(frozen=True, eq=False)
class ChannelScales:
    """What the numbers of each channel of an input mean: ``q = round((x - offset) / scale) + zero_point``, in
    float64, with the zero point of the value. The network itself knows only the value's scale.

    A scale below 0 says that the integers fall as the numbers grow.
    """

    #: float32 [channels], not 0.
    scale: Tensor
    #: float32 [channels]: the number that the zero point stands for.
    offset: Tensor

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ChannelScales)
            and torch.equal(self.scale, other.scale)
            and torch.equal(self.offset, other.offset)
        )

    def __hash__(self) -> int:
        return hash((*self.scale.tolist(), *self.offset.tolist()))

    @staticmethod
    def of_affine(factor: Tensor, shift: Tensor, quantization: Quantization) -> ChannelScales:
        """The scales of a value ``y = factor * x + shift``, by which x becomes the integers of y.

        A factor of 0, a channel that is constant, counts as one that changes no integer for any |x| < 2^117.

        Args:
            factor: float64 [channels]; shift likewise.
            quantization: of y.

        Raises:
            QuantizationError: a scale or offset is no float32.

        >>> factor, shift = torch.tensor([[2.0, -1.0], [6.0, 1.0]], dtype=torch.float64)
        >>> scales = ChannelScales.of_affine(factor, shift, Quantization(0.5, 0))
        >>> scales.scale, scales.offset
        (tensor([ 0.2500, -0.5000]), tensor([-3.,  1.]))
        """
        step = quantization.scale
        least = torch.full_like(factor, step * _LEAST_FACTOR)
        constant = factor.abs() < least
        factor = torch.where(constant, torch.copysign(least, factor), factor)
        # Further from zero all integers saturate, whatever the zero point.
        most = 4.0 * (quantization.bounds[1] + 1)
        whole = round_half_away(shift / step).clamp(-most, most) * step
        shift = torch.where(constant, whole, shift)
        scale, offset = (step / factor).float(), (-shift / factor).float()
        if not torch.compiler.is_compiling():
            right = scale.isfinite() & (scale != 0) & offset.isfinite()
            if not bool(right.all()):
                channel = int((~right).nonzero()[0, 0])
                raise QuantizationError(
                    f"channel {channel} is multiplied by {float(factor[channel]):.3g}, and "
                    f"{float(shift[channel]):.3g} is added; expected numbers whose quotients with the scale "
                    f"{step:.3g} and with each other are float32"
                )
        return ChannelScales(scale, offset)
