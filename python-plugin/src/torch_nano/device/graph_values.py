"""The inputs and outputs of a device's model, and their encoding as bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _native
from ..arithmetic.quantization import ChannelScales, Quantization
from ..errors import InputError


@dataclass(frozen=True)
class GraphValue:
    """An input or output of a device's model."""

    #: The name of forward's argument; for an output the key of the dict or the field of the named tuple that
    #: the model returns, or "output", or "output0", "output1" and so on; of nested outputs "output1.0".
    name: str
    #: Height, width, channels.
    shape: tuple[int, int, int]
    #: Scale, zero point and dtype.
    quantization: Quantization
    #: Scales and offsets of channels, for an input that has them.
    channels: ChannelScales | None = None

    @property
    def dtype(self) -> str:
        """ "int8", "int16" or "int32"."""
        return self.quantization.dtype

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def travelling(self) -> np.dtype[Any]:
        """The dtype in which its elements are sent: little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def length(self) -> int:
        """Number of its bytes."""
        return self.elements * self.travelling.itemsize

    def real(self, elements: NDArray[Any]) -> NDArray[np.float32]:
        """The real numbers of its elements, [elements] in the device's order."""
        steps = elements.astype(np.int64) - self.quantization.zero_point
        return (np.float32(self.quantization.scale) * steps).astype(np.float32)

    def __str__(self) -> str:
        sides = " x ".join(map(str, self.shape))
        own = ", and of each channel its own" if self.channels else ""
        quantization = f"scale {self.quantization.scale:.6g}, zero point {self.quantization.zero_point}{own}"
        return f"{self.name}: {sides} {self.dtype}, {quantization}"

    @classmethod
    def of(cls, answer: Mapping[str, Any], channels: bytes) -> Self:
        """From the answer to the request "describe", and the bytes of the block "channels"."""
        quantization = Quantization(answer["scale"], answer["zero_point"], answer["dtype"])
        scale, offset = np.frombuffer(channels, "<f4").reshape(-1, 2).T
        return cls(answer["name"], answer["shape"], quantization, _channels(scale, offset))


def inputs_of(model: _native.Model) -> list[GraphValue]:
    """The inputs of an image."""
    found = []
    for index, name, channels in zip(model.inputs, model.input_names, model.input_channels, strict=True):
        value = model.values[index]
        quantization = Quantization(value["scale"], value["zero_point"], value["dtype"])
        scales = None if channels is None else _channels(channels["scale"], channels["offset"])
        found.append(GraphValue(name, value["shape"], quantization, scales))
    return found


def _channels(scale: NDArray[np.float32], offset: NDArray[np.float32]) -> ChannelScales | None:
    if not scale.size:
        return None
    return ChannelScales(torch.tensor(scale.astype(np.float32)), torch.tensor(offset.astype(np.float32)))


def split(data: bytes, values: Sequence[GraphValue]) -> dict[str, NDArray[Any]]:
    """Splits the bytes of several inputs or outputs, one after the other, into arrays [elements] by name.

    Raises:
        InputError: the number of bytes is wrong.
    """
    ends = [0, *accumulate(value.length for value in values)]
    if len(data) != ends[-1]:
        raise InputError(f"there are {len(data)} bytes; {', '.join(v.name for v in values)} have {ends[-1]}")
    parts = [data[start:end] for start, end in pairwise(ends)]
    return {
        value.name: np.frombuffer(part, value.travelling) for value, part in zip(values, parts, strict=True)
    }
