"""Quantization of weights and biases, symmetric per output channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _native
from ..errors import NonFiniteError


class QuantizedChannels(NamedTuple):
    """A layer's quantized parameters: real weight = s_w * weight, real bias = s_x * s_w * bias."""

    #: int8, shape of the float weight (output channels first).
    weight: Tensor
    #: int32 [channels].
    bias: Tensor
    #: float32 [channels].
    scales: Tensor


def quantize_channels(
    weight: Tensor, bias: Tensor | None, input_scale: float, *, input_bits: int = 8
) -> QuantizedChannels:
    """Quantizes weights and biases symmetrically per output channel: ``s_w = max|w| / 127``.

    Weights are ``round(w / s_w)``, biases ``round(b / (s_x * s_w))``, halves to even. A channel whose weights
    are all 0 gets the layer's largest scale (1 if all are), so that its multiplier is like the others'. Where
    a bias would exceed 2^22 steps of its scale (2^30 for inputs of 16 bits), as the channel's weights are
    tiny beside it, the scale is raised until it does not.

    Args:
        weight: float [channels, ...].
        bias: float [channels], None for zeros.
        input_scale: the scale of the layer's input; input_bits its number of bits.

    Raises:
        NonFiniteError: a weight or a bias is NaN or infinite.

    >>> quantize_channels(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), torch.tensor([0.1, 0.0]), 0.5)[:2]
    (tensor([[127, -64],
            [  0,   0]], dtype=torch.int8), tensor([25,  0], dtype=torch.int32))
    """
    biases = weight.new_zeros(len(weight)) if bias is None else bias
    try:
        channels = _native.quantize_channels(_flat(weight), _flat(biases), input_scale, input_bits)
    except _native.NanoError as error:
        raise NonFiniteError(str(error)) from error
    quantized, quantized_bias, scales = (torch.from_numpy(array).to(weight.device) for array in channels)
    return QuantizedChannels(quantized.reshape(weight.shape), quantized_bias, scales)


def _flat(tensor: Tensor) -> npt.NDArray[np.float32]:
    flat: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).reshape(-1).numpy()
    return flat
