"""Depthwise convolution: one output channel per input channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import functional
from ._channels import define_channels
from ._convolution import ConvolutionOperator, as_2d_weight, explicit_padding
from ._window import pair, spatial_dimensions


@dataclass(frozen=True)
class DepthwiseConv2d(ConvolutionOperator):
    """``y = clamp(bias + sum x * weight)`` under a window, per channel.

    The weight is [channels, 1, kernel_height, kernel_width] or [channels, 1, kernel].

    >>> from torch_nano.ir.layer import Layer
    >>> weight = torch.tensor([[[1.0, 1.0]], [[0.0, 2.0]]])
    >>> x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> Layer(DepthwiseConv2d(kernel=(1, 2)), [x], {"weight": weight}).float_run()
    (tensor([[[3.],
             [8.]]]),)
    """

    name = "depthwise_conv2d"

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        raise TypeError("Conv2d.from_call makes this operator")

    def groups_for(self, weight: Tensor) -> int:
        return len(weight)

    def to_device_weight(self, weight: Tensor) -> Tensor:
        return as_2d_weight(weight).squeeze(1)

    def from_device_weight(self, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1)


_call = define_channels(DepthwiseConv2d)


@functional
def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scales: Tensor,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Depthwise convolution in integers: ``conv2d`` with one group per channel.

    Formula, dtypes, gradients and the other arguments are those of ``conv2d``.

    Args:
        x: float32 [N, channels, height, width] or [N, channels, length], numbers of its dtype.
        weight: float32 [channels, 1, kernel_height, kernel_width] or [channels, 1, kernel], -127 to 127.

    Returns:
        float32 [N, channels, ...] that holds numbers of y's dtype.

    Raises:
        InputError: a tensor has another dtype, or holds other numbers than these integers.

    >>> x, w = torch.tensor([[[10.0, 20.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]]])
    >>> depthwise_conv2d(x, w, None, torch.tensor([1.0, 1.0]), Quantization(0.5, 0), Quantization(1.0, 0))
    tensor([[[25.],
             [ 6.]]])
    """
    spatial = spatial_dimensions(x)
    kernel, dilation = pair(weight.shape[2:], spatial, 1), pair(dilation, spatial, 1)
    sides = explicit_padding(padding, spatial, kernel, dilation)
    operator = DepthwiseConv2d(
        kernel, pair(stride, spatial, 1), sides, dilation, clamp_low=clamp_low, clamp_high=clamp_high
    )
    return _call(operator, [x], [x_quantization], y_quantization, [weight, bias, weight_scales])
