"""A tensor of a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic.layout import Layout, Shape, from_device, to_device
from ..arithmetic.quantization import ChannelScales, Quantization
from ..arithmetic.tensors import quantize_tensor, random_integers

#: Numbers that are quantized at a time.
_NUMBERS = 2**22


@dataclass(frozen=True)
class Dropout:
    """A dropout that follows a value in training; in evaluation it does nothing."""

    #: ATen's name: "dropout" for single numbers, "feature_dropout" for whole channels, "alpha_dropout".
    function: str
    probability: float
    #: Dotted path of the module whose training mode decides.
    module_path: str
    #: "file:line" of the user's own code.
    source: str
    #: Whether others also read the value without the dropout.
    bypassed: bool


@dataclass
class Value:
    """One tensor of a graph, float or quantized."""

    name: str
    shape: Shape
    quantization: Quantization | None = None
    #: Dotted path of the module that computes it; "" for the model itself.
    module_path: str = ""
    #: "file:line" of the user's code that computes it.
    source: str = ""
    dropouts: tuple[Dropout, ...] = ()
    #: Of an input or output of the model that the user sees in another shape or order: from the user's tensor
    #: to this value. It costs nothing on the device, whose bytes are the value's.
    layout: Layout | None = None
    #: What each channel of the model's value was multiplied by, so that it uses more of the integers
    #: (equalization): the layers before and after it have other weights. Empty: not scaled.
    factors: tuple[float, ...] = ()
    #: Of an input that holds indices: they are from 0 to this number - 1. None for real numbers.
    index_limit: int | None = None

    @property
    def user_shape(self) -> Shape:
        """The shape of a sample as the model takes or returns it."""
        return self.shape if self.layout is None else self.layout.shape

    @property
    def user_dtype(self) -> torch.dtype:
        """The dtype of an input in torch: float32, or int64 for indices."""
        return torch.float32 if self.index_limit is None else torch.int64

    def from_user(self, x: Tensor) -> Tensor:
        """The value [N, *shape] of the user's tensor [N, *user_shape]."""
        return x if self.layout is None else self.layout.apply(x)

    def to_user(self, x: Tensor) -> Tensor:
        """Undoes :meth:`from_user`."""
        return x if self.layout is None else self.layout.inverse().apply(x)

    def quantize(self, x: Tensor, channels: ChannelScales | None = None) -> Tensor:
        """The user's real numbers [N, *user_shape] as integers of the same shape; `channels` are the
        value's.
        """
        chosen = self.quantization
        assert chosen is not None
        # Quantizing takes several float64 tensors of the size of its input.
        most = max(1, _NUMBERS // max(1, math.prod(self.shape)))
        parts = [
            self.to_user(quantize_tensor(self.from_user(part), chosen, channels))
            for part in torch.split(x, most)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def random(self, samples: int, generator: torch.Generator) -> Tensor:
        """Random integers [samples, *user_shape] that the value can hold, all of them equally likely."""
        assert self.quantization is not None
        shape = (samples, *self.user_shape)
        if self.index_limit is None:
            return random_integers(shape, self.quantization, generator)
        return torch.randint(self.index_limit, shape, dtype=torch.int32, generator=generator)

    def to_device(self, x: Tensor) -> Tensor:
        """The user's tensor [N, *user_shape] as [N, elements] in the device's order."""
        return to_device(self.from_user(x))

    def from_device(self, elements: Tensor) -> Tensor:
        """Undoes :meth:`to_device`."""
        return self.to_user(from_device(elements, self.shape))
