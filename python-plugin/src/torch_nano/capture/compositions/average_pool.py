"""Average pools with a divisor of their own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def average_pool_by_divisor(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor | None:
    """torch's ``avg_pool2d`` with ``divisor_override``: the mean times a constant; None without it.

    Raises:
        UnsupportedNodeError: its windows may have fewer elements than the kernel.
    """
    if divisor_override is None:
        return None
    if ceil_mode:
        raise UnsupportedNodeError(
            "it divides by divisor_override, with ceil_mode", "leave divisor_override or ceil_mode out"
        )
    # One number stands for both sides.
    area = prod([*kernel_size] * (2 // len(kernel_size)))
    mean = F.avg_pool2d(self, list(kernel_size), list(stride) or None, list(padding), False, True)
    return mean * (area / divisor_override)
