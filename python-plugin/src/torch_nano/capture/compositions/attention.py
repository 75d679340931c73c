"""Attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """torch's ``scaled_dot_product_attention``: ``softmax(scale * query @ key^T + mask) @ value``.

    The scale is a factor of the query, which can be folded into the layer that computes it.

    Raises:
        UnsupportedNodeError: the mask excludes positions.
    """
    if is_causal or (attn_mask is not None and attn_mask.dtype == torch.bool):
        raise UnsupportedNodeError(
            f"its mask excludes positions ({'is_causal' if is_causal else 'attn_mask is bool'}); int8 has no "
            "number that stands for minus infinity beside the scores",
            "leave the mask out and give it windows of one length, or add a small finite bias (attn_mask of "
            "floats)",
        )
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.mT)
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)
