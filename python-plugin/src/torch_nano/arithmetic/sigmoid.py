"""Sigmoid and tanh of int16 numbers in torch, bit for bit those of ``nano-core/src/sigmoid.rs``."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from torch_nano import _native


def sigmoid(x: Tensor) -> Tensor:
    """Sigmoid of int16 numbers in steps of 2^-12, in steps of 2^-15; int64 tensors.

    >>> sigmoid(torch.tensor([0, 4096, -32768]))
    tensor([16384, 23956,    11])
    """
    x = 3 * x
    y = _of_magnitude(x.abs(), 9)
    return torch.where(x >= 0, y + (1 << 9), (1 << 25) - y + (1 << 9) - 1) >> 10


def tanh(x: Tensor, exponent: int) -> Tensor:
    """Tanh of int16 numbers in steps of 2^exponent, in steps of 2^-15; int64 tensors.

    >>> tanh(torch.tensor([0, 4096, -32768]), -12)
    tensor([     0,  24956, -32767])
    """
    shift = exponent + 12
    x = (3 * x) << shift if shift >= 0 else (3 * x + (1 << (-shift - 1))) >> -shift
    y = _of_magnitude(x.abs(), 8) - (1 << 23)
    return torch.where(x >= 0, y + (1 << 7), -y + (1 << 7) - 1) >> 8


def _of_magnitude(x: Tensor, bits: int) -> Tensor:
    """The table at ``x / 2^bits``, between two entries on the line through them, times 2^bits."""
    table = _table().to(x.device)
    last = len(table) - 1
    index = (x >> bits).clamp(max=last)
    low, high = table[index], table[(index + 1).clamp(max=last)]
    return (low << bits) + (x & ((1 << bits) - 1)) * (high - low)


@lru_cache(maxsize=1)
def _table() -> Tensor:
    return torch.tensor(_native.sigmoid_table(), dtype=torch.int64)
