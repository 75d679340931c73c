"""From torch's channels-first tensors to the device's height, width, channels, and back."""

from __future__ import annotations

from torch import Tensor

from .operator import Shape


def device_shape(shape: Shape) -> tuple[int, int, int]:
    """Height, width, channels of a torch shape without batch.

    >>> device_shape((16, 8, 4)), device_shape((6, 100)), device_shape((10,))
    ((8, 4, 16), (1, 100, 6), (1, 1, 10))
    """
    channels, *sides = shape
    height, width = [1] * (2 - len(sides)) + sides
    return height, width, channels


def to_device(tensor: Tensor) -> Tensor:
    """[N, channels, ...] in torch's layout as [N, elements] in the device's.

    >>> import torch
    >>> to_device(torch.tensor([[[1, 2, 3], [10, 20, 30]]]))
    tensor([[ 1, 10,  2, 20,  3, 30]])
    """
    return tensor.movedim(1, -1).flatten(1).contiguous()


def from_device(elements: Tensor, shape: Shape) -> Tensor:
    """[N, elements] in the device's layout as [N, *shape] in torch's: undoes :func:`to_device`.

    >>> import torch
    >>> from_device(torch.tensor([[1, 10, 2, 20, 3, 30]]), (2, 3))
    tensor([[[ 1,  2,  3],
             [10, 20, 30]]])
    """
    channels, *sides = shape
    return elements.reshape(elements.shape[0], *sides, channels).movedim(-1, 1).contiguous()
