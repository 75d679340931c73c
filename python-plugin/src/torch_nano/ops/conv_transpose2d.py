"""2-D and 1-D transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import functional
from ..library.train_run import Convolution
from ._channels import define_channels
from ._convolution import ConvolutionOperator, as_2d_weight
from ._window import Padding, Pair, in_2d, pair, spatial_dimensions, spatial_input

aten = torch.ops.aten


@dataclass(frozen=True)
class ConvTranspose2d(ConvolutionOperator):
    """``y = clamp(bias + sum x * weight)``: each input pixel contributes to the outputs under its window.

    The weight is [in, out / groups, kernel_height, kernel_width] or [in, out / groups, kernel]. The padding
    crops the full output; a negative number at the end adds rows or columns of the bias alone (torch's
    output_padding).

    >>> layer = ConvTranspose2d(kernel=(1, 2), stride=(1, 2))
    >>> weight = torch.tensor([[[1.0, 10.0]]])
    >>> Layer(layer, [torch.tensor([[[1.0, 2.0]]])], {"weight": weight}).float_run()
    (tensor([[[ 1., 10.,  2., 20.]]]),)
    """

    name = "conv_transpose2d"
    slides = False

    groups: int = 1

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.conv_transpose2d.input, aten.conv_transpose1d.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        arguments = call.arguments
        names = call.parameters("weight", "bias")
        weight = call.tensors[names["weight"]]
        spatial = weight.dim() - 2
        value = spatial_input(call, "input", spatial)
        stride, dilation = (pair(arguments[name], spatial, 1) for name in ("stride", "dilation"))
        padding, output_padding = (
            pair(arguments[name], spatial, 0) for name in ("padding", "output_padding")
        )
        kernel = pair(weight.shape[2:], spatial, 1)
        operator = cls(kernel, stride, _cut(padding, output_padding), dilation, arguments["groups"])
        return operator, [value], names

    def groups_for(self, weight: Tensor) -> int:
        return self.groups

    def outputs_first(self, weight: Tensor) -> Tensor:
        inputs, outputs, *window = weight.shape
        by_group = weight.reshape(self.groups, inputs // self.groups, outputs, *window)
        return by_group.transpose(1, 2).flatten(0, 1)

    def from_outputs_first(self, weight: Tensor) -> Tensor:
        # Its own inverse: the exchange of inputs and outputs within each group.
        return self.outputs_first(weight)

    def to_device_weight(self, weight: Tensor) -> Tensor:
        return self.outputs_first(as_2d_weight(weight)).permute(0, 2, 3, 1)

    def from_device_weight(self, weight: Tensor) -> Tensor:
        return self.from_outputs_first(weight.permute(0, 3, 1, 2))

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {**super().attributes(layer), "groups": self.groups}

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = as_2d_weight(weight)
        if tuple(weight.shape[2:]) != self.kernel:
            raise InputError(
                f"{self.name}: the weight's window is {tuple(weight.shape[2:])}, the kernel {self.kernel}"
            )
        top, bottom, left, right = self.padding
        more = (max(0, -bottom), max(0, -right))

        def in_two_dimensions(x: Tensor) -> Tensor:
            full = F.conv_transpose2d(x, weight, bias, self.stride, 0, more, self.groups, self.dilation)
            height, width = full.shape[2:]
            return full[:, :, top : height - max(0, bottom), left : width - max(0, right)]

        return in_2d(in_two_dimensions, x)

    def train_run(self, layer: Layer) -> Tensor:
        """Convolves the input, with zeros inserted between its pixels, with the flipped weight."""
        weight = self.outputs_first(as_2d_weight(layer.parameters["weight"])).flip((2, 3))
        convolution = Convolution(dilation=self.dilation, groups=self.groups)
        top, bottom, left, right = self.padding
        rows, columns = (step * (length - 1) for step, length in zip(self.dilation, self.kernel, strict=True))
        down, across = (stride - 1 for stride in self.stride)

        def in_two_dimensions(x: Tensor) -> Tensor:
            apart = F.pad(x[:, :, :, None, :, None], (0, across, 0, 0, 0, down)).flatten(4).flatten(2, 3)
            padded = F.pad(
                apart, (columns - left, columns - right - across, rows - top, rows - bottom - down)
            )
            return self.train_as_convolution(layer, padded, weight, convolution)

        return in_2d(in_two_dimensions, layer.input)


def _cut(padding: Pair, output_padding: Pair) -> Padding:
    """Converts torch's padding and output_padding to the cropping at top, bottom, left, right."""
    (height, width), (bottom, right) = padding, output_padding
    return height, height - bottom, width, width - right


_call = define_channels(ConvTranspose2d)


@functional
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scales: Tensor,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Int8 transposed convolution, with the requantization of ``conv2d``.

    All tensors are float32 that holds integers, so that gradients flow: straight through the rounding, zero
    where the output saturates. Each spatial argument is one number, or one number per dimension, as in torch.

    Args:
        x: [N, in, height, width] or [N, in, length], -128 to 127.
        weight: [in, out / groups, kernel_height, kernel_width] or [in, out / groups, kernel], -127 to 127.
        bias: [out], int32 in steps of ``s_x * s_w``; None for zeros.
        weight_scales: float32 [out], the s_w; gets no gradient.
        padding: rows or columns cropped at each side of the output.
        output_padding: rows or columns added at the end of the output.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for none; clamp_high likewise.

    Returns:
        float32 [N, out, ...] that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype, or values that are not such integers; the output padding is
            not below the stride or the dilation; the padding crops the whole output.

    >>> x, w = torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> scales = torch.tensor([0.5])
    >>> conv_transpose2d(x, w, None, scales, Quantization(0.5, 0), Quantization(1.0, 0), stride=2)
    tensor([[[ 3.,  5.,  5., 10.]]])
    """
    spatial = spatial_dimensions(x)
    kernel, stride = pair(weight.shape[2:], spatial, 1), pair(stride, spatial, 1)
    dilation = pair(dilation, spatial, 1)
    cut = _cut(pair(padding, spatial, 0), pair(output_padding, spatial, 0))
    operator = ConvTranspose2d(
        kernel, stride, cut, dilation, groups, clamp_low=clamp_low, clamp_high=clamp_high
    )
    _check(operator, x, pair(output_padding, spatial, 0))
    return _call(operator, [x], [x_quantization], y_quantization, [weight, bias, weight_scales])


def _check(operator: ConvTranspose2d, x: Tensor, output_padding: Pair) -> None:
    sides = tuple(x.shape[2:]) if x.dim() == 4 else (1, *x.shape[2:])
    ends = ((operator.padding[0], operator.padding[1]), (operator.padding[2], operator.padding[3]))
    for axis, length in enumerate(sides):
        stride, dilation = operator.stride[axis], operator.dilation[axis]
        if not 0 <= output_padding[axis] < max(stride, dilation):
            raise InputError(
                f"conv_transpose2d: the output padding is {output_padding[axis]}; expected 0 or more, "
                f"below the stride, {stride}, or the dilation, {dilation}"
            )
        full = (length - 1) * stride + dilation * (operator.kernel[axis] - 1) + 1
        if full <= sum(ends[axis]):
            raise InputError(
                f"conv_transpose2d: the padding cuts off {sum(ends[axis])} of {full} rows or columns; "
                "expected less"
            )
