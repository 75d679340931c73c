"""Fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.layout import Shape, from_device, to_device
from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import functional
from ..library.train_run import Convolution
from ._channels import ChannelsOperator, define_channels
from ._channels_first import channels_back, channels_first
from ._steps import Step, element_numbers, run_steps, step
from .conv2d import Conv2d


@dataclass(frozen=True)
class FullyConnected(ChannelsOperator):
    """``y = clamp(x @ weight.T + bias)`` of a vector; weight [out, in].

    A linear layer on more dimensions, [N, ..., features], is a 1x1 convolution.

    With ``flattened``, the input has that shape, (channels, height, width), (channels, length) or
    (features,): it goes through ``steps``, moves that put its elements into another order, and is flattened.

    >>> linear = FullyConnected(flattened=(2, 1, 1), clamp_low=0.0)
    >>> weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    >>> Layer(linear, [torch.tensor([[[[1.0]], [[2.0]]]])], {"weight": weight}).float_run()
    (tensor([[3., 0.]]),)
    """

    name = "fully_connected"

    flattened: Shape | None = None
    steps: tuple[str, ...] = ()

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.linear.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        names = call.parameters("weight", "bias")
        value = call.input("input")
        last = len(value.shape)
        if last == 1:
            return cls(), [value], names
        # Each pixel by itself: a 1x1 convolution.
        moved = Moved(value, channels_first(value.shape, last))
        return MovedBack(Conv2d(kernel=(1, 1)), (channels_back(call.output_shape, last),)), [moved], names

    def columns(self, x: Tensor) -> Tensor:
        """The elements of x in the order of the weight's columns, [N, in]."""
        return run_steps(self._calls, x).flatten(1)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.columns(x), weight, bias)

    def train_run(self, layer: Layer) -> Tensor:
        pixel = self.columns(layer.input)[:, :, None, None]
        weight = layer.parameters["weight"][:, :, None, None]
        return self.train_as_convolution(layer, pixel, weight, Convolution()).flatten(1)

    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        if self.flattened is None:
            return weight * factors
        every = factors.reshape(-1, *[1] * (len(self.flattened) - 1)).expand(self.flattened)
        return weight * run_steps(self._calls, every[None]).flatten()

    def by_channels(self, weight: Tensor) -> Tensor:
        if self.flattened is None:
            return weight
        in_order = weight[:, self._order(self.flattened).argsort()] if self.steps else weight
        return in_order.reshape(-1, *self.flattened)

    def to_device_weight(self, weight: Tensor) -> Tensor:
        return weight if self.flattened is None else to_device(self.by_channels(weight))

    def from_device_weight(self, weight: Tensor) -> Tensor:
        if self.flattened is None:
            return weight
        in_order = from_device(weight, self.flattened).flatten(1)
        return in_order[:, self._order(self.flattened)] if self.steps else in_order

    @cached_property
    def _calls(self) -> tuple[Step, ...]:
        return tuple(map(step, self.steps))

    def _order(self, shape: Shape) -> Tensor:
        """Which element of the input each column of the weight belongs to."""
        return element_numbers(self.steps, shape).flatten()


_call = define_channels(FullyConnected)


@functional
def fully_connected(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scales: Tensor,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Linear layer in integers: ``y = clamp(requantize((x - z_x) @ weight.T + bias) + z_y)``.

    The accumulator is requantized with the multiplier ``s_x * s_w / s_y``, rounded twice as in TFLM; in a
    layer of int16, whose quantizations of x and y are int16, its multiplier has 15 bits and is rounded once.
    All tensors are float32 that holds integers. The gradient is straight-through, and zero where the output
    saturates.

    Args:
        x: [N, in], numbers of its dtype; other shapes are flattened in torch's order.
        weight: [out, in], -127 to 127.
        bias: [out], int32 (int64 in a layer of int16) in steps of ``s_x * s_w``; None for zeros.
        weight_scales: float32 [out], the s_w; gets no gradient.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for no bound; clamp_high
            likewise.

    Returns:
        float32 [N, out] that holds numbers of y's dtype.

    Raises:
        InputError: a tensor has another dtype, or holds other numbers than these integers.

    >>> x, w = torch.tensor([[10.0, 20.0]]), torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
    >>> bias, scales = torch.tensor([4.0, 4.0]), torch.tensor([0.5, 0.5])
    >>> fully_connected(x, w, bias, scales, Quantization(0.5, 0), Quantization(1.0, 0))
    tensor([[14., -2.]])
    """
    flattened = tuple(x.shape[1:]) if x.dim() > 2 else None
    operator = FullyConnected(flattened, clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [x], [x_quantization], y_quantization, [weight, bias, weight_scales])
