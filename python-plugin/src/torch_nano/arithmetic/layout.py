"""Layouts: torch's channels-first tensors, the device's height, width, channels, channels-last memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

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


@dataclass(frozen=True)
class Layout:
    """A permutation of a tensor's dimensions, or of factors of them: reshape, permute, reshape.

    >>> layout = Layout((2, 3), (2, 3), (1, 0), (3, 2))
    >>> x = torch.tensor([[[1, 2, 3], [10, 20, 30]]])
    >>> layout.apply(x), torch.equal(layout.inverse().apply(layout.apply(x)), x)
    (tensor([[[ 1, 10],
             [ 2, 20],
             [ 3, 30]]]), True)
    """

    #: Shape of a sample before it.
    shape: Shape
    #: The lengths of the factors of :attr:`shape`, in torch's order.
    factors: Shape
    #: The factors in their new order.
    dims: tuple[int, ...]
    #: Shape of a sample after it.
    result: Shape

    def __post_init__(self) -> None:
        counts = {prod(sides) for sides in (self.shape, self.factors, self.result)}
        positive = all(side > 0 for side in (*self.shape, *self.factors, *self.result))
        if not positive or len(counts) != 1 or sorted(self.dims) != list(range(len(self.factors))):
            raise ValueError(f"{self} does not permute the elements of {self.shape}")

    @staticmethod
    def of_numbers(numbers: Tensor, shape: Shape) -> Layout | None:
        """The layout that takes element ``numbers[i]`` of a sample of `shape` to element i.

        None if that is not a permutation of factors: a flip, a slice.

        >>> Layout.of_numbers(torch.tensor([[0, 3], [1, 4], [2, 5]]), (2, 3))
        Layout(shape=(2, 3), factors=(2, 3), dims=(1, 0), result=(3, 2))
        """
        rest = numbers.flatten()
        if rest.numel() != prod(shape) or int(rest[0]):
            return None
        #: Length and stride of each factor in the new order, the innermost first.
        found: list[tuple[int, int]] = []
        while rest.numel() > 1:
            stride = int(rest[1])
            if stride < 1:
                return None
            differs = (rest != torch.arange(rest.numel()) * stride).nonzero()
            length = int(differs[0]) if len(differs) else rest.numel()
            if rest.numel() % length:
                return None
            blocks = rest.reshape(-1, length)
            if not torch.equal(blocks, blocks[:, :1] + torch.arange(length) * stride):
                return None
            found.insert(0, (length, stride))
            rest = blocks[:, 0]
        order = sorted(range(len(found)), key=lambda index: -found[index][1])
        factors = tuple(found[index][0] for index in order)
        if any(found[index][1] != prod(factors[place + 1 :]) for place, index in enumerate(order)):
            return None
        dims = tuple(order.index(index) for index in range(len(order)))
        return Layout(tuple(shape), factors, dims, tuple(numbers.shape))

    def apply(self, x: Tensor) -> Tensor:
        """[N, *shape] as [N, *result]."""
        if self.factors != self.shape:
            x = x.reshape(len(x), *self.factors)
        return x.permute(0, *(dim + 1 for dim in self.dims)).reshape(len(x), *self.result)

    def inverse(self) -> Layout:
        """From :attr:`result` back to :attr:`shape`."""
        dims = tuple(self.dims.index(index) for index in range(len(self.dims)))
        return Layout(self.result, tuple(self.factors[dim] for dim in self.dims), dims, self.shape)

    @property
    def last(self) -> int | None:
        """The dimension of :attr:`shape` that is the last one of the result; None if there is no such one.

        >>> Layout((50, 6), (50, 6), (1, 0), (6, 50)).last
        0
        """
        length, factor = self.result[-1], self.dims[-1] if self.dims else 0
        if not self.dims or self.factors[factor] % length:
            return None
        before = prod(self.factors[:factor]) * (self.factors[factor] // length)
        found = (
            dim for dim, side in enumerate(self.shape) if side == length and prod(self.shape[:dim]) == before
        )
        return next(found, None)

    def with_last(self, length: int) -> Layout:
        """The same order of dimensions for another length of the result's last dimension, :attr:`last`."""
        last = self.last
        assert last is not None
        shape, factors = list(self.shape), list(self.factors)
        factors[self.dims[-1]] = factors[self.dims[-1]] // shape[last] * length
        shape[last] = length
        return Layout(tuple(shape), tuple(factors), self.dims, (*self.result[:-1], length))

    def then(self, after: Layout) -> Layout:
        """This layout, then another one of its result."""
        numbers = torch.arange(prod(self.shape)).reshape(1, *self.shape)
        both = Layout.of_numbers(after.apply(self.apply(numbers))[0], self.shape)
        assert both is not None
        return both
