"""Attention."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    weights = _weights(query, key, attn_mask, scale)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: None,
    bias_v: None,
    add_zero_attn: Literal[False],
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: None = None,
    static_v: None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """torch's ``F.multi_head_attention_forward``, with the batch apart from the heads and first.

    Query, key and value have projections of their own, so that each has a quantization of its own.

    Args:
        query: [length, N, features]; key and value alike, of another length or other numbers of features.
        attn_mask: [length, length of the key], or [N * heads, length, length of the key].
        key_padding_mask: [N, length of the key].

    Returns:
        The output [length, N, features], and the weights [N, length, length of the key] or [N, heads, length,
        length of the key] if they are needed.
    """
    if in_proj_weight is not None and not use_separate_proj_weight:
        q_proj_weight, k_proj_weight, v_proj_weight = _thirds(in_proj_weight)
    biases = (None,) * 3 if in_proj_bias is None else _thirds(in_proj_bias)
    assert q_proj_weight is not None and k_proj_weight is not None and v_proj_weight is not None
    matrices = (q_proj_weight, k_proj_weight, v_proj_weight)
    query, key, value = (
        _heads(F.linear(x.transpose(0, 1), weight, bias), num_heads)
        for x, weight, bias in zip((query, key, value), matrices, biases, strict=True)
    )
    # Here True is for what is excluded.
    attn_mask, key_padding_mask = (
        torch.where(mask, -torch.inf, 0.0) if mask is not None and mask.dtype == torch.bool else mask
        for mask in (attn_mask, key_padding_mask)
    )
    if attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.reshape(-1, num_heads, *attn_mask.shape[1:])
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, None]
        attn_mask = padding if attn_mask is None else attn_mask + padding
    weights = F.dropout(_weights(query, key, attn_mask), dropout_p, training)
    result = torch.matmul(weights, value).transpose(1, 2).flatten(2)
    output = F.linear(result, out_proj_weight, out_proj_bias).transpose(0, 1)
    if not need_weights:
        return output, None
    return output, weights.mean(1) if average_attn_weights else weights


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """The weight of each key for each query; of a bool mask True is for the keys that count."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, -torch.inf)
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.mT)
    return torch.softmax(scores if mask is None else scores + mask, -1)


def _heads(x: Tensor, count: int) -> Tensor:
    """[N, length, features] as [N, heads, length, features of a head]."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def _thirds(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of query, key and value of a packed weight or bias."""
    size = len(packed) // 3
    return packed[:size], packed[size : 2 * size], packed[2 * size :]
