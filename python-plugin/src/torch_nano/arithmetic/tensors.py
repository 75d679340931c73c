"""Quantization and dequantization of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .fixed_point import round_half_away
from .quantization import ChannelScales, Quantization

#: Numbers of a channel of one sample from which a reduction over them is as fast as one over samples.
_LONG_ROW = 256


def check_finite(x: Tensor) -> None:
    """Raises for an input [N, ...] with NaN or infinity.

    Raises:
        InputError: the input has NaN or infinity; the message names the samples.
    """
    # Fast path: a finite sum has finite terms only. A sum that is not finite may have overflowed.
    if not math.isfinite(x.sum().item()) and not bool(torch.isfinite(x).all()):
        samples = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist()
        raise InputError(
            f"the input holds NaN or infinity in samples {samples[:8]} of {len(x)}; clean the data first"
        )


def channel_extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number of each channel.

    Args:
        x: [N, channels, ...] with at least one number, or [N], which is one channel.

    >>> channel_extremes(torch.tensor([[[1, 4], [0, 0]], [[-1, 2], [3, 0]]]))
    (tensor([-1,  0]), tensor([4, 3]))
    """
    rows = x.reshape(len(x), x.shape[1] if x.dim() > 1 else 1, -1)
    # One dimension after the other, up to 15 times as fast as both at once; long rows first, which leaves
    # few numbers in memory.
    first, then = (2, 0) if rows.shape[2] >= _LONG_ROW else (0, 1)
    return rows.amin(first).amin(then), rows.amax(first).amax(then)


def random_integers(shape: Sequence[int], quantization: Quantization, generator: torch.Generator) -> Tensor:
    """Random integers of a quantization's dtype, all of them equally likely.

    >>> random_integers((2, 3), Quantization(1.0, 0, "int16"), torch.Generator().manual_seed(0)).dtype
    torch.int16
    """
    low, high = quantization.bounds
    return torch.randint(low, high + 1, tuple(shape), dtype=quantization.torch_dtype, generator=generator)


def quantize_tensor(x: Tensor, quantization: Quantization, channels: ChannelScales | None = None) -> Tensor:
    """Quantizes a float tensor: ``round(x / scale) + zero_point``, clamped; with scales of its channels
    ``round((x - offset) / scale) + zero_point``.

    In float64; halves are rounded away from zero, as in TFLite. nano-core's ``ChannelScale::quantize`` in
    torch.

    Args:
        x: [N, channels, ...].

    >>> quantize_tensor(torch.tensor([0.25, -0.25, 0.24, 100.0]), Quantization(0.5, 10))
    tensor([ 11,   9,  10, 127], dtype=torch.int8)
    """
    if channels is None:
        real = x.double() / quantization.scale
    else:
        scale, offset = (
            numbers.to(x.device, torch.float64).reshape(-1, *[1] * (x.dim() - 2))
            for numbers in (channels.scale, channels.offset)
        )
        real = (x.double() - offset) / scale
    steps = round_half_away(real)
    return (steps + quantization.zero_point).clamp(*quantization.bounds).to(quantization.torch_dtype)


def dequantize_tensor(q: Tensor, quantization: Quantization) -> Tensor:
    """Dequantizes integers: ``scale * (q - zero_point)``, float32; indices become int64.

    >>> dequantize_tensor(torch.tensor([10, 12], dtype=torch.int8), Quantization(0.5, 10))
    tensor([0., 1.])
    """
    if quantization.holds_indices:
        return q.long()
    steps = q.to(quantization.training_dtype) - quantization.zero_point
    return (steps * quantization.scale).float()
