"""Operators in quantization-aware training: the device's forward pass on float32 that holds integers, with
straight-through gradients.

Between layers the numbers are integers without their zero point, ``q - zero_point``: padding is 0, and no
layer needs to subtract. One custom operator serves all layers with weights, another all other layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_nano import _native

from ..arithmetic.clamp import clamp_steps
from ..arithmetic.fixed_point import accumulation_dtype, exact_convolution, is_native, requantize_channels
from ..arithmetic.layout import channels_last, elements, empty_channels_last
from ..arithmetic.quantization import ChannelScales, Quantization
from ..arithmetic.tensors import check_finite, quantize_tensor
from ..arithmetic.weights import quantize_channels
from ..ir.encoding import decode_text
from ..ir.layer import Layer
from ..ir.straight_through import replace_forward
from .definition import no_second_derivative

_library = torch.library.Library("torch_nano", "FRAGMENT")  # type: ignore[no-untyped-call]


def train_input(
    x: Tensor,
    quantization: Quantization,
    channels: ChannelScales | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Quantizes real numbers, without the zero point; float32, for int32 float64.

    Args:
        channels: what the numbers of each channel of x mean, if they have scales of their own.
        real: the numbers that the integers stand for, which get the gradient; None: x.

    Raises:
        InputError: NaN or infinity.

    >>> train_input(torch.tensor([0.25, 1.0]), Quantization(0.5, 10))
    tensor([1., 2.])
    """
    low, high = quantization.levels
    scales = (None, None) if channels is None else (channels.scale, channels.offset)
    fields = (quantization.scale, quantization.zero_point, *scales, quantization.dtype)
    exact = torch.ops.torch_nano.train_input(x.detach(), *fields)
    real = x if real is None else real
    if not real.requires_grad:
        return exact  # type: ignore[no-any-return]
    inside = (real.float() / quantization.scale).clamp(low, high)
    return replace_forward(inside.to(exact.dtype), exact)


def _input(
    x: Tensor,
    scale: float,
    zero_point: int,
    channel_scale: Tensor | None,
    channel_offset: Tensor | None,
    dtype: str = "int8",
) -> Tensor:
    check_finite(x)
    channels = None
    if channel_scale is not None and channel_offset is not None:
        channels = ChannelScales(channel_scale, channel_offset)
    quantization = Quantization(scale, zero_point, dtype)
    y = quantize_tensor(x, quantization, channels).to(quantization.training_dtype)
    return channels_last(y.sub_(zero_point))


def _fake_input(
    x: Tensor, scale: Any, zero_point: Any, channel_scale: Any, channel_offset: Any, dtype: str = "int8"
) -> Tensor:
    return empty_channels_last(x.shape, x.device).to(Quantization(1.0, 0, dtype).training_dtype)


def _exact(
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    roles: Sequence[str],
    encoded: str,
    scales: Sequence[float],
    zero_points: Sequence[int],
    dtypes: Sequence[str],
) -> list[Tensor]:
    quantizations = [Quantization(*fields) for fields in zip(scales, zero_points, dtypes, strict=True)]
    of_inputs, of_outputs = quantizations[: len(inputs)], quantizations[len(inputs) :]
    numbers = [
        (x + quantization.zero_point).to(quantization.torch_dtype)
        for x, quantization in zip(inputs, of_inputs, strict=True)
    ]
    layer = Layer(
        decode_text(encoded),
        numbers,
        dict(zip(roles, parameters, strict=True)),
        input_quantizations=of_inputs,
        output_quantizations=of_outputs,
    )
    outputs = replace(layer, tensors=layer.quantize()).integer_run()
    return [
        channels_last(y.to(quantization.training_dtype).sub_(quantization.zero_point))
        for y, quantization in zip(outputs, of_outputs, strict=True)
    ]


def _fake_exact(
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    roles: Sequence[str],
    encoded: str,
    scales: Any,
    zero_points: Any,
    dtypes: Sequence[str],
) -> list[Tensor]:
    outputs = Layer(decode_text(encoded), inputs, dict(zip(roles, parameters, strict=True))).float_run()
    return [
        empty_channels_last(y.shape, y.device).to(Quantization(1.0, 0, dtype).training_dtype)
        for y, dtype in zip(outputs, dtypes[len(inputs) :], strict=True)
    ]


class Convolution(NamedTuple):
    """The arguments of torch's convolutions; a linear layer is a convolution of a single pixel."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def train_channels(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    convolution: Convolution,
    input_quantization: Quantization,
    output_quantization: Quantization,
    clamp: tuple[float | None, float | None] = (None, None),
) -> Tensor:
    """A layer with weights as the device computes it, with a straight-through gradient.

    The gradient is that of the real layer ``y / s_y`` of ``x * s_x``, `weight` and `bias`, and zero where the
    output is at a bound of its clamp.

    Args:
        x: float32 that holds integers [N, in, height, width], numbers of int8 without their zero point, or
            of int16.
        weight: float32 [out, in / groups, height, width], real numbers.
        bias: float32 [out], real numbers; None for zeros.
        clamp: the smallest and the largest real number of the output, None for no bound.

    Returns:
        float32 [N, out, height, width], numbers of the same dtype without their zero point.

    Raises:
        NonFiniteError: a weight or a bias is NaN or infinite.

    >>> x = torch.tensor([[[[10.0]], [[-2.0]]]])
    >>> weight = torch.tensor([[[[0.5]], [[1.0]]]], requires_grad=True)
    >>> y = train_channels(
    ...     x, weight, None, Convolution(), Quantization(0.5, 0), Quantization(1.0, 3), (0.0, 6.0)
    ... )
    >>> y.sum().backward()
    >>> y.flatten(), weight.grad.flatten()
    (tensor([2.], grad_fn=<ViewBackward0>), tensor([ 5., -1.]))
    """
    y, _ = torch.ops.torch_nano.train_channels(
        x,
        weight,
        bias,
        *convolution,
        input_quantization.scale,
        input_quantization.zero_point,
        output_quantization.scale,
        output_quantization.zero_point,
        output_quantization.dtype,
        *clamp,
    )
    return y  # type: ignore[no-any-return]


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    x_scale: float,
    x_zero_point: int,
    y_scale: float,
    y_zero_point: int,
    dtype: str,
    clamp_low: float | None,
    clamp_high: float | None,
) -> tuple[Tensor, Tensor]:
    """The output, and the weight times the requantization multiplier, which the gradient of x needs."""
    of_x = Quantization(x_scale, x_zero_point, dtype)
    channels = quantize_channels(weight, bias, x_scale, input_bits=of_x.bits)
    sum_dtype = accumulation_dtype(channels.weight, channels.bias, of_x.levels)
    integers = channels.weight.to(sum_dtype)
    # With a single input channel, torch's convolution is 3 times slower in channels-last memory.
    layout = channels_last if x.shape[1] > 1 else torch.Tensor.contiguous
    with exact_convolution(x.device):
        sums = F.conv2d(
            layout(x.to(sum_dtype)),
            layout(integers),
            channels.bias.to(sum_dtype),
            stride,
            padding,
            dilation,
            groups,
        )
    sums = channels_last(sums)
    reals = x_scale * channels.scales.to(torch.float64) / y_scale
    clamp = clamp_steps(clamp_low, clamp_high, Quantization(y_scale, y_zero_point, dtype))
    y = _requantized(sums, reals, clamp, wide=of_x.bits > 8)
    return y, integers.float() * reals.float().reshape(-1, 1, 1, 1)


def _requantized(sums: Tensor, reals: Tensor, clamp: tuple[int, int], *, wide: bool) -> Tensor:
    if is_native(sums) and sums.dtype is torch.float32 and not wide:
        _native.requantize_(elements(sums).numpy(), reals.numpy(), *clamp)
        return sums
    return requantize_channels(sums, reals.tolist(), 0, clamp, torch.float32, wide=wide)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *quantization: Any,
) -> tuple[Tensor, Tensor]:
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return empty_channels_last(y.shape, y.device), torch.empty(weight.shape, device=y.device)


def _backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    scaled_weight: Tensor,
    needed: Sequence[bool],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    x_scale: float,
    y_scale: float,
    y_zero_point: int,
    dtype: str,
    clamp_low: float | None,
    clamp_high: float | None,
) -> list[Tensor]:
    low, high = clamp_steps(clamp_low, clamp_high, Quantization(y_scale, y_zero_point, dtype))
    inside = torch.ops.aten.hardtanh_backward(grad, y, low, high)
    with exact_convolution(grad.device):
        x_grad, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
            channels_last(inside),
            channels_last(x),
            channels_last(scaled_weight),
            [len(scaled_weight)],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            needed,
        )
    gradients = []
    if needed[0]:
        gradients.append(channels_last(x_grad))
    if needed[1]:
        gradients.append(weight_grad.mul_(x_scale / y_scale).contiguous())
    if needed[2]:
        gradients.append(bias_grad.mul_(1.0 / y_scale))
    return gradients


def _fake_backward(
    grad: Tensor, x: Tensor, y: Tensor, scaled_weight: Tensor, needed: Sequence[bool], *rest: Any
) -> list[Tensor]:
    shapes = [scaled_weight.shape, scaled_weight.shape[:1]]
    gradients = [empty_channels_last(x.shape, x.device)]
    gradients += [torch.empty(shape, device=x.device) for shape in shapes]
    return [gradient for gradient, need in zip(gradients, needed, strict=True) if need]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, _, *convolution, x_scale, _, y_scale, y_zero_point, dtype, clamp_low, clamp_high = inputs
    y, scaled_weight = output
    ctx.mark_non_differentiable(scaled_weight)
    ctx.save_for_backward(x, y, scaled_weight)
    ctx.rest = (*convolution, x_scale, y_scale, y_zero_point, dtype, clamp_low, clamp_high)
    ctx.arguments = len(inputs)


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:3])
    gradients = iter(
        torch.ops.torch_nano.train_channels_backward(grad, *ctx.saved_tensors, needed, *ctx.rest)
    )
    by_input = [next(gradients) if need else None for need in needed]
    return (*by_input, *[None] * (ctx.arguments - len(needed)))


def define_training(
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[..., None] | None = None,
    gradients: Callable[..., Any] = no_second_derivative,
) -> None:
    """Defines a custom operator of training: `save` saves what `gradients` needs; without them it has no
    gradient.
    """
    name = f"torch_nano::{schema.partition('(')[0]}"
    _library.define(schema)  # type: ignore[no-untyped-call]
    _library.impl(name.removeprefix("torch_nano::"), run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(name, fake, lib=_library)
    torch.library.register_autograd(name, gradients, setup_context=save, lib=_library)
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(name, device, torch.float32, lib=_library)


_CONVOLUTION = "int[] stride, int[] padding, int[] dilation, int groups"
define_training(
    "train_input(Tensor x, float scale, int zero_point, Tensor? channel_scale, Tensor? channel_offset, "
    "str dtype='int8') -> Tensor",
    _input,
    _fake_input,
)
define_training(
    "train_exact(Tensor[] inputs, Tensor[] parameters, str[] roles, str operator, float[] scales, "
    "int[] zero_points, str[] dtypes) -> Tensor[]",
    _exact,
    _fake_exact,
)
define_training(
    f"train_channels(Tensor x, Tensor weight, Tensor? bias, {_CONVOLUTION}, float x_scale, int x_zero_point, "
    "float y_scale, int y_zero_point, str dtype, float? clamp_low, float? clamp_high) -> (Tensor, Tensor)",
    _forward,
    _fake,
    save=_save,
    gradients=_gradients,
)
define_training(
    "train_channels_backward(Tensor grad, Tensor x, Tensor y, Tensor scaled_weight, bool[] needed, "
    f"{_CONVOLUTION}, float x_scale, float y_scale, int y_zero_point, str dtype, float? clamp_low, "
    "float? clamp_high) -> Tensor[]",
    _backward,
    _fake_backward,
)
