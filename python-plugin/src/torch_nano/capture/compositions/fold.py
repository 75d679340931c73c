"""Sums of blocks, the inverse of sliding windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def fold(
    self: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """torch's ``col2im`` (nn.Fold), as a transposed convolution: its weights are 1 where an element of a
    block goes, else 0.
    """
    axes = zip(output_size, kernel_size, dilation, padding, strict=True)
    spans = [size + 2 * pad - rate * (kernel - 1) - 1 for size, kernel, rate, pad in axes]
    blocks = [span // step + 1 for span, step in zip(spans, stride, strict=True)]
    rest = [span % step for span, step in zip(spans, stride, strict=True)]
    taps = kernel_size[0] * kernel_size[1]
    channels = self.shape[1] // taps
    weight = torch.eye(taps, dtype=self.dtype).reshape(taps, 1, *kernel_size).repeat(channels, 1, 1, 1)
    return F.conv_transpose2d(
        self.reshape(*self.shape[:2], *blocks),
        weight,
        stride=tuple(stride),
        padding=tuple(padding),
        output_padding=tuple(rest),
        groups=channels,
        dilation=tuple(dilation),
    )
