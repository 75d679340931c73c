"""2-D and 1-D convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import functional
from ._channels import define_channels
from ._convolution import ConvolutionOperator, as_2d_weight, explicit_padding
from ._window import pair, spatial_dimensions, spatial_input
from .depthwise_conv2d import DepthwiseConv2d

aten = torch.ops.aten


@dataclass(frozen=True)
class Conv2d(ConvolutionOperator):
    """``y = clamp(bias + sum x * weight)`` under a window.

    The weight is [out, in / groups, kernel_height, kernel_width] or [out, in / groups, kernel], or that of a
    linear layer, [out, in], with a 1x1 kernel.

    >>> convolution = Conv2d(kernel=(1, 3), padding=(0, 0, 1, 1))
    >>> Layer(convolution, [torch.ones(1, 1, 4)], {"weight": torch.ones(1, 1, 3)}).float_run()
    (tensor([[[2., 3., 3., 2.]]]),)
    """

    name = "conv2d"

    groups: int = 1

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.conv2d.default, aten.conv2d.padding, aten.conv1d.default, aten.conv1d.padding]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        arguments = call.arguments
        names = call.parameters("weight", "bias")
        weight = call.tensors[names["weight"]]
        spatial = weight.dim() - 2
        value = spatial_input(call, "input", spatial)
        kernel = pair(weight.shape[2:], spatial, 1)
        stride, dilation = (pair(arguments[name], spatial, 1) for name in ("stride", "dilation"))
        padding = explicit_padding(arguments["padding"], spatial, kernel, dilation)
        groups = arguments["groups"]
        if weight.shape[0] == value.shape[0] == groups > 1:
            return DepthwiseConv2d(kernel, stride, padding, dilation), [value], names
        return cls(kernel, stride, padding, dilation, groups), [value], names

    def groups_for(self, weight: Tensor) -> int:
        return self.groups

    def to_device_weight(self, weight: Tensor) -> Tensor:
        return as_2d_weight(weight).permute(0, 2, 3, 1)

    def from_device_weight(self, weight: Tensor) -> Tensor:
        return weight.permute(0, 3, 1, 2)

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {**super().attributes(layer), "groups": self.groups}


_call = define_channels(Conv2d)


@functional
def conv2d(
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
    groups: int = 1,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Convolution in integers: ``y = clamp(requantize(sum (x - z_x) * weight + bias) + z_y)``.

    The accumulator is requantized with the multiplier ``s_x * s_w / s_y``, rounded twice as in TFLM; in a
    layer of int16, whose quantizations of x and y are int16, its multiplier has 15 bits and is rounded once.
    All tensors are float32 that holds integers. The gradient is straight-through, and zero where the output
    saturates. Each spatial argument is a number or one number per dimension.

    Args:
        x: [N, in, height, width] or [N, in, length], numbers of its dtype.
        weight: [out, in / groups, kernel_height, kernel_width] or [out, in / groups, kernel], -127 to 127.
        bias: [out], int32 (int64 in a layer of int16) in steps of ``s_x * s_w``; None for zeros.
        weight_scales: float32 [out], the s_w; gets no gradient.
        padding: with the zero point; as in torch, or four numbers: top, bottom, left, right.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for no bound; clamp_high
            likewise.

    Returns:
        float32 [N, out, ...] that holds numbers of y's dtype.

    Raises:
        InputError: a tensor has another dtype, or holds other numbers than these integers.

    >>> x, w = torch.tensor([[[10.0, 20.0, 30.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> conv2d(x, w, None, torch.tensor([0.5]), Quantization(0.5, 0), Quantization(1.0, 0))
    tensor([[[13., 20.]]])
    >>> fine, finer = Quantization(0.5, 0, "int16"), Quantization(1.0, 0, "int16")
    >>> conv2d(100.0 * x, w, None, torch.tensor([0.5]), fine, finer)
    tensor([[[1250., 2000.]]])
    """
    spatial = spatial_dimensions(x)
    kernel, dilation = pair(weight.shape[2:], spatial, 1), pair(dilation, spatial, 1)
    sides = explicit_padding(padding, spatial, kernel, dilation)
    operator = Conv2d(
        kernel, pair(stride, spatial, 1), sides, dilation, groups, clamp_low=clamp_low, clamp_high=clamp_high
    )
    return _call(operator, [x], [x_quantization], y_quantization, [weight, bias, weight_scales])
