"""Normalizations over groups of channels, as layer norms over their elements."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...ir.call import UnsupportedNodeError


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """torch's ``group_norm``: each group of channels is normalized, then each channel scaled and shifted."""
    samples, channels, *sides = input.shape
    grouped = input.reshape(samples, num_groups, -1)
    y = F.layer_norm(grouped, (grouped.shape[2],), eps=eps).reshape(input.shape)
    per_channel = (channels, *[1] * len(sides))
    if weight is not None:
        y = y * weight.reshape(per_channel)
    return y if bias is None else y + bias.reshape(per_channel)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """torch's ``instance_norm``: a group norm with one channel in each group, or a batch norm.

    Raises:
        UnsupportedNodeError: it normalizes with the sample's statistics and has running ones.
    """
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        raise UnsupportedNodeError(
            "it normalizes with the sample's statistics and moves running ones",
            "use an InstanceNorm with track_running_stats=False",
        )
    return F.group_norm(input, input.shape[1], weight, bias, eps)
