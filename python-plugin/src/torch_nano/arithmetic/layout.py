"""Layouts: torch's channels-first tensors, the device's height, width, channels, channels-last memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: A torch shape without the batch dimension: (channels, height, width), (channels, length) or (features,).
Shape = tuple[int, ...]


def device_shape(shape: Shape) -> tuple[int, int, int]:
    """Height, width, channels (HWC) of a torch shape without batch.

    >>> device_shape((16, 8, 4)), device_shape((6, 100)), device_shape((10,))
    ((8, 4, 16), (1, 100, 6), (1, 1, 10))
    """
    channels, *sides = shape
    height, width = [1] * (2 - len(sides)) + sides
    return height, width, channels


def torch_shapes(shape: tuple[int, int, int]) -> list[Shape]:
    """The torch shapes without batch of a value of this height, width and channels, the longest first.

    >>> torch_shapes((8, 4, 16)), torch_shapes((1, 100, 6)), torch_shapes((1, 1, 10))
    ([(16, 8, 4)], [(6, 1, 100), (6, 100)], [(10, 1, 1), (10, 1), (10,)])
    """
    height, width, channels = shape
    every: list[Shape] = [(channels, height, width), (channels, width), (channels,)]
    return [one for one in every if device_shape(one) == shape]


def channels_last(tensor: Tensor) -> Tensor:
    """The same tensor [N, channels, ...] in channels-last memory, as on the device.

    torch's convolutions on the CPU, their gradients most of all, are 2 to 6 times as fast with it on layers
    of 16 to 64 channels.

    >>> channels_last(torch.zeros(1, 3, 2, 2)).stride()
    (12, 1, 6, 3)
    """
    if tensor.dim() < 3:
        return tensor.contiguous()
    moved = tensor.movedim(1, -1)
    # The tensor, not a view of it: autograd accumulates in place only into tensors that own their memory.
    return tensor if moved.is_contiguous() else moved.contiguous().movedim(-1, 1)


def empty_channels_last(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """An uninitialized float32 tensor [N, channels, ...] in channels-last memory.

    >>> empty_channels_last((1, 3, 2, 2)).stride()
    (12, 1, 6, 3)
    """
    if len(shape) < 3:
        return torch.empty(shape, device=device)
    samples, channels, *sides = shape
    return torch.empty((samples, *sides, channels), device=device).movedim(-1, 1)


def elements(tensor: Tensor) -> Tensor:
    """A flat view of a tensor from :func:`channels_last`, in memory order."""
    return (tensor if tensor.dim() < 3 else tensor.movedim(1, -1)).view(-1)


def to_device(tensor: Tensor) -> Tensor:
    """Flattens [N, channels, ...] in torch's layout to [N, elements] in the device's.

    >>> to_device(torch.tensor([[[1, 2, 3], [10, 20, 30]]]))
    tensor([[ 1, 10,  2, 20,  3, 30]])
    """
    if tensor.dim() > 2:
        tensor = tensor.movedim(1, -1).flatten(1)
    return tensor.contiguous()


def from_device(elements: Tensor, shape: Shape) -> Tensor:
    """[N, elements] in the device's layout as [N, *shape] in torch's: the inverse of :func:`to_device`.

    >>> from_device(torch.tensor([[1, 10, 2, 20, 3, 30]]), (2, 3))
    tensor([[[ 1,  2,  3],
             [10, 20, 30]]])
    """
    channels, *sides = shape
    if sides:
        elements = elements.reshape(elements.shape[0], *sides, channels).movedim(-1, 1)
    return elements.contiguous()
