"""Convolutions, pools and normalizations of images whose samples are joined with another dimension.

``x.view(N * T, C, H, W)`` lets a convolution run on each of T frames. Here the frames have a dimension of
their own, [N, T, C, ...], and one call computes all: the frames are channels where each channel counts for
itself, else they are one below the other in one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]
#: From a call's arguments with the first as [N, T, C, ...] to its result as [N, T, C, ...].
Rule = Callable[..., Tensor]


def on_joined(target: Target, joined: Sequence[int], **arguments: Any) -> Tensor:
    """The result of a call that has a rule, with the batch first.

    Args:
        joined: one length or two that the batch was joined with; the first argument is [N, *joined, C, ...].
    """
    name, x = next(iter(arguments.items()))
    y = RULES[target](**{**arguments, name: x.flatten(1, len(joined))})
    return _apart(y, 1, joined)


def on_each(target: Target, joined: Sequence[int], **arguments: Any) -> Tensor:
    """The results of a call on each part of its tensors, [N, *joined, ...], by itself."""
    count = prod(joined)

    def part(argument: Any, index: int) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        return argument.flatten(1, len(joined))[:, index]

    parts = [
        target(**{name: part(argument, index) for name, argument in arguments.items()})
        for index in range(count)
    ]
    return _apart(torch.stack(parts, 1), 1, joined)


def _apart(x: Tensor, dim: int, sides: Sequence[int]) -> Tensor:
    """The tensor with several dimensions in the place of one."""
    return x.reshape(*x.shape[:dim], *sides, *x.shape[dim + 1 :])


def _as_channels(target: Target, **arguments: Any) -> Tensor:
    """A call of which each channel is one of its own."""
    name, x = next(iter(arguments.items()))
    y: Tensor = target(**{**arguments, name: x.flatten(1, 2)})
    return _apart(y, 1, [x.shape[1], -1])


def _as_rows(target: Target, **arguments: Any) -> Tensor:
    """A call with parameters for each channel, which treats all positions alike."""
    name, x = next(iter(arguments.items()))
    image = x.transpose(1, 2)
    if x.dim() == 3:
        y: Tensor = target(**{**arguments, name: image})
    else:
        y = _apart(target(**{**arguments, name: image.flatten(2, 3)}), 2, [x.shape[1], -1])
    return y.transpose(1, 2)


def _normalization(target: Target, **arguments: Any) -> Tensor:
    """A normalization of each channel or group of channels by itself, with parameters for each channel."""
    frames = arguments["input"].shape[1]
    if "num_groups" in arguments:
        arguments["num_groups"] *= frames
    for name in ("weight", "bias", "running_mean", "running_var"):
        if arguments.get(name) is not None:
            arguments[name] = arguments[name].repeat(frames)
    return _as_channels(target, **arguments)


def _transposed_convolution(
    target: Target,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Tensor:
    """A transposed convolution of frames one below the other, so far apart that no outputs overlap."""
    frames, height, step = input.shape[1], input.shape[3], stride[0]
    window = dilation[0] * (weight.shape[2] - 1) + 1
    rows = (height - 1) * step + window + output_padding[0]
    pitch = max(-(-rows // step), height)
    others = [0] * 2 * (input.dim() - 4)
    image = _padded(input.transpose(1, 2), [*others, 0, pitch - height]).flatten(2, 3)
    given = [0, *padding[1:]], [0, *output_padding[1:]]
    y: Tensor = target(image, weight, bias, list(stride), *given, groups, list(dilation))
    # The last frame's outputs end before its pitch, or after it.
    y = _padded(y, [*others, 0, max(frames * pitch * step - y.shape[2], 0)])
    y = _apart(y.narrow(2, 0, frames * pitch * step), 2, [frames, -1])
    return y.narrow(3, padding[0], rows - 2 * padding[0]).transpose(1, 2)


def _convolution(
    target: Target,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution of frames one below the other, each with its padding and as many rows as strides."""
    frames, height, step = input.shape[1], input.shape[3], stride[0]
    window = dilation[0] * (weight.shape[2] - 1) + 1
    if isinstance(padding, str):
        total = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)
        ]
        first = [each // 2 for each in total]
        last = [each - before for each, before in zip(total, first, strict=True)]
    else:
        first, last = list(padding), list(padding)
    rows = first[0] + height + last[0]
    pitch = -(-rows // step) * step
    # From the last dimension to the first; the convolution itself pads columns on both sides.
    columns = [
        side for before, after in zip(first[:0:-1], last[:0:-1], strict=True) for side in (0, after - before)
    ]
    image = _padded(input.transpose(1, 2), [*columns, first[0], pitch - first[0] - height]).flatten(2, 3)
    # The last frame gives as many rows as the others.
    image = _padded(image, [0] * len(columns) + [0, max(window - step, 0)])
    convolve = F.conv1d if len(first) == 1 else F.conv2d
    y = convolve(image, weight, bias, list(stride), [0, *first[1:]], list(dilation), groups)
    return _apart(y, 2, [frames, -1]).narrow(3, 0, (rows - window) // step + 1).transpose(1, 2)


def _pad(self: Tensor, pad: list[int], mode: str, value: float | None) -> Tensor:
    if mode == "constant":
        return F.pad(self, pad, mode, value)
    return _as_channels(aten.pad.default, self=self, pad=pad, mode=mode, value=value)


def _padded(x: Tensor, sides: list[int]) -> Tensor:
    return F.pad(x, sides) if any(sides) else x


_CONVOLUTIONS = (aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding)
_OF_CHANNELS = (
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
)
#: The rules by call.
RULES: dict[Target, Rule] = {
    **{target: partial(_convolution, target) for target in _CONVOLUTIONS},
    **{target: partial(_as_channels, target) for target in _OF_CHANNELS},
    **{target: partial(_as_rows, target) for target in (aten.batch_norm.default, aten.prelu.default)},
    **{
        target: partial(_normalization, target)
        for target in (aten.group_norm.default, aten.instance_norm.default)
    },
    **{
        target: partial(_transposed_convolution, target)
        for target in (aten.conv_transpose1d.default, aten.conv_transpose2d.input)
    },
    aten.pad.default: _pad,
}
