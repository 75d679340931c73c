"""Weights and biases as integers, per output channel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NonFiniteError

_LARGEST = 127
#: A bias of at most this many steps of its scale: the accumulator keeps its range for the products.
_LARGEST_BIAS = 2**22


class QuantizedChannels(NamedTuple):
    """A layer's parameters as integers: real weight = s_w * weight, real bias = s_x * s_w * bias."""

    #: int8, shape of the float weight (output channels first).
    weight: Tensor
    #: int32 [channels].
    bias: Tensor
    #: float32 [channels].
    scales: Tensor


def quantize_channels(weight: Tensor, bias: Tensor | None, input_scale: float) -> QuantizedChannels:
    """Symmetric quantization per output channel: ``s_w = max|w| / 127``.

    Weights are ``round(w / s_w)``, biases ``round(b / (s_x * s_w))``.

    Halves go to the even neighbour. A channel without weights takes the layer's largest scale (1 if there is
    none), so that its multiplier is like the others'. Where a bias would exceed 2^22 steps of its scale (the
    channel's weights are next to nothing beside it), the scale is raised until it does not.

    Args:
        weight: float [channels, ...].
        bias: float [channels], None for zeros.
        input_scale: the scale of the layer's input.

    Raises:
        NonFiniteError: a weight or a bias is NaN or infinite.

    >>> quantize_channels(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), torch.tensor([0.1, 0.0]), 0.5)[:2]
    (tensor([[127, -64],
            [  0,   0]], dtype=torch.int8), tensor([25,  0], dtype=torch.int32))
    """
    real = weight.detach().to(torch.float64).flatten(1)
    real_bias = real.new_zeros(len(real)) if bias is None else bias.detach().to(torch.float64)
    for name, tensor in (("weight", real), ("bias", real_bias)):
        if not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"the {name} holds NaN or infinity in output channels {_channels_of(~tensor.isfinite())}"
            )
    scales = real.abs().amax(1) / _LARGEST
    scales = scales.where(scales > 0, scales.max() if bool(scales.any()) else torch.ones_like(scales))
    scales = torch.maximum(scales, real_bias.abs() / (input_scale * _LARGEST_BIAS))
    scales = scales.to(torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
    steps = scales.to(torch.float64)
    quantized = (real / steps[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    quantized_bias = (real_bias / (input_scale * steps)).round().to(torch.int32)
    return QuantizedChannels(quantized.reshape(weight.shape), quantized_bias, scales)


def _channels_of(marked: Tensor) -> str:
    channels = marked.reshape(len(marked), -1).any(1).nonzero().flatten().tolist()
    return ", ".join(map(str, channels[:8])) + (", ..." if len(channels) > 8 else "")
