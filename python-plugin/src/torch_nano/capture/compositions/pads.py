"""Padding with other numbers than zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def constant_pad(self: Tensor, pad: Sequence[int], value: float | None) -> Tensor | None:
    """torch's ``constant_pad_nd``: the tensor less the number, padded with zeros, plus the number.

    None for zeros, which are one layer.

    Raises:
        UnsupportedNodeError: the number is not finite.
    """
    if not value:
        return None
    if not math.isfinite(value):
        raise UnsupportedNodeError(
            f"it pads with {value}, which has no integer",
            "before a max pool use its padding=, else pad with a number",
        )
    return F.pad(self - value, list(pad)) + value


def pad(self: Tensor, pad: Sequence[int], mode: str, value: float | None) -> Tensor | None:
    """torch's ``pad``: :func:`constant_pad`; None for the other modes, which are one layer."""
    return constant_pad(self, pad, value) if mode == "constant" else None
