"""Base class of the convolutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..ir.layer import Layer
from ..library.train_run import Convolution
from ._channels import ChannelsOperator
from ._window import Padding, Pair, WindowOperator, in_2d, pair


@dataclass(frozen=True)
class ConvolutionOperator(WindowOperator, ChannelsOperator):
    """A convolution; [N, channels, length] counts as height 1."""

    dilation: Pair = (1, 1)

    @abstractmethod
    def groups_for(self, weight: Tensor) -> int:
        """The number of groups of the convolution with this weight."""

    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        by_output = self.outputs_first(weight)
        by_group = factors.reshape(self.groups_for(weight), 1, by_output.shape[1])
        every = by_group.expand(-1, len(by_output) // len(by_group), -1).flatten(0, 1)
        return self.from_outputs_first(by_output * every.reshape(*every.shape, *[1] * (weight.dim() - 2)))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        groups = self.groups_for(weight)
        top, bottom, left, right = self.padding
        weight = as_2d_weight(weight)
        if tuple(weight.shape[2:]) != self.kernel:
            raise InputError(
                f"{self.name}: the weight's window is {tuple(weight.shape[2:])}, the kernel {self.kernel}"
            )

        def in_two_dimensions(x: Tensor) -> Tensor:
            if (top, left) == (bottom, right):
                return F.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, groups)
            return F.conv2d(self.pad(x, 0.0), weight, bias, self.stride, 0, self.dilation, groups)

        return in_2d(in_two_dimensions, x)

    def train_run(self, layer: Layer) -> Tensor:
        weight = as_2d_weight(layer.parameters["weight"])
        top, bottom, left, right = self.padding
        symmetric = (top, left) == (bottom, right)
        padding = (top, left) if symmetric else (0, 0)
        convolution = Convolution(self.stride, padding, self.dilation, self.groups_for(weight))

        def in_two_dimensions(x: Tensor) -> Tensor:
            return self.train_as_convolution(layer, x if symmetric else self.pad(x, 0.0), weight, convolution)

        return in_2d(in_two_dimensions, layer.input)


def as_2d_weight(weight: Tensor) -> Tensor:
    """[out, in] as [out, in, 1, 1], [out, in, kernel] as [out, in, 1, kernel]; others unchanged."""
    if weight.dim() == 2:
        return weight[:, :, None, None]
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


def explicit_padding(
    padding: int | Sequence[int] | str, spatial: int, kernel: Pair, dilation: Pair
) -> Padding:
    """A convolution's padding as top, bottom, left, right, from torch's notations or four numbers.

    >>> explicit_padding("same", 2, (3, 4), (1, 1)), explicit_padding(2, 1, (1, 5), (1, 1))
    ((1, 1, 1, 2), (0, 0, 2, 2))
    """
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        # With an odd number of padded places, the larger half is at the end.
        height, width = dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)
        return height // 2, height - height // 2, width // 2, width - width // 2
    if not isinstance(padding, int) and len(padding) == 4:
        return padding[0], padding[1], padding[2], padding[3]
    height, width = pair(padding, spatial, 0)
    return height, height, width, width
