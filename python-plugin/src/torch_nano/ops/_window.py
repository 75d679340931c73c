"""The sliding window of convolutions and pools: attributes, padding, and their notations in ATen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.layout import Shape, device_shape
from ..errors import InputError
from ..ir.adaptive_windows import in_one_layer
from ..ir.call import Call, Moved, MovedBack, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value

#: Height and width.
Pair = tuple[int, int]
#: Top, bottom, left, right.
Padding = tuple[int, int, int, int]


@dataclass(frozen=True)
class WindowOperator(Operator):
    """An operator that slides a window over height and width; [N, channels, length] has height 1."""

    #: Whether each output reads the inputs under its window; if not, each input reaches the outputs under it.
    slides: ClassVar[bool] = True

    dilation = (1, 1)

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)

    def attributes(self, layer: Layer) -> dict[str, int]:
        values = super().attributes(layer)
        for name in ("kernel", "stride", "dilation"):
            values[f"{name}_height"], values[f"{name}_width"] = getattr(self, name)
        for side, count in zip(("top", "bottom", "left", "right"), self.padding, strict=True):
            values[f"padding_{side}"] = count
        return values

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Pads [N, channels, height, width] with `value`."""
        top, bottom, left, right = self.padding
        return F.pad(x, (left, right, top, bottom), value=value) if any(self.padding) else x


def in_2d(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of [N, channels, height, width] to such a tensor or to [N, channels, length].

    >>> import torch
    >>> in_2d(lambda x: x[..., ::2], torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 4])
    """
    return function(x.unsqueeze(2)).squeeze(2) if x.dim() == 3 else function(x)


def pair(numbers: int | Sequence[int], spatial: int, height: int) -> Pair:
    """A number or a list as height and width; `height` is the first number for one spatial dimension.

    >>> pair(3, 2, 1), pair([3], 1, 1), pair([3, 5], 2, 1)
    ((3, 3), (1, 3), (3, 5))
    """
    sides = [numbers] if isinstance(numbers, int) else list(numbers)
    if len(sides) == 1:
        sides *= spatial
    return (height, sides[0]) if spatial == 1 else (sides[0], sides[1])


def spatial_dimensions(x: Tensor) -> int:
    """The number of dimensions after the channels.

    Raises:
        InputError: it is not 1 or 2.
    """
    if x.dim() not in (3, 4):
        raise InputError(
            f"x has shape {tuple(x.shape)}; expected [N, channels, height, width] or [N, channels, length]"
        )
    return x.dim() - 2


def spatial_input(call: Call, name: str, spatial: int) -> Value:
    """The input of an operator with `spatial` dimensions after the channels.

    Raises:
        UnsupportedNodeError: it is not a tensor of the run, or has no batch.
    """
    value = call.input(name)
    if len(value.shape) != spatial + 1:
        needed = "(channels, height, width)" if spatial == 2 else "(channels, length)"
        raise UnsupportedNodeError(
            f"its input has shape {value.shape} besides the batch; it needs {needed}",
            "give it an input with a batch",
        )
    return value


class Axes(NamedTuple):
    """Both axes of a value: 1-D has height 1."""

    height: int
    width: int

    @staticmethod
    def of(shape: Shape) -> Axes:
        """The axes of a torch shape without batch."""
        height, width, _ = device_shape(shape)
        return Axes(height, width)


def padding_for(
    input_: Pair, output: Pair, kernel: Pair, stride: Pair, dilation: Pair, before: Pair
) -> Padding:
    """The padding for this output size: `before` on both sides, and more at the end if ceil_mode needs it.

    >>> padding_for((5, 5), (2, 3), (2, 2), (2, 2), (1, 1), (0, 0))
    (0, 0, 0, 1)
    """
    sides: list[int] = []
    for axis in range(2):
        reach = (output[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        sides += [before[axis], max(before[axis], reach - input_[axis] - before[axis])]
    return sides[0], sides[1], sides[2], sides[3]


@dataclass(frozen=True)
class PoolOperator(WindowOperator):
    """A pool: input and output share scale and zero point."""

    #: Dimensions (of the tensor with batch) that the output drops: a reduction without keepdim.
    squeezed: tuple[int, ...] = ()

    def attributes(self, layer: Layer) -> dict[str, int]:
        low, high = layer.output_quantization.bounds
        return {**super().attributes(layer), "clamp_min": low, "clamp_max": high}

    def float_run(self, layer: Layer) -> Tensor:
        return self.of(layer.input)

    def of(self, x: Tensor) -> Tensor:
        """The pool, for any float dtype."""
        return self.squeeze(in_2d(self.pool, x))

    def squeeze(self, y: Tensor) -> Tensor:
        """The output without the dimensions that a reduction drops."""
        return y.squeeze(self.squeezed) if self.squeezed else y

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """The pool of float [N, channels, height, width]."""


def window_of_pool(call: Call, spatial: int) -> tuple[Value, dict[str, Any]]:
    """The input and the window of a pool, from an ATen call with kernel_size, stride and padding."""
    arguments = call.arguments
    value = spatial_input(call, "self", spatial)
    kernel = pair(arguments["kernel_size"], spatial, 1)
    stride = pair(arguments["stride"] or arguments["kernel_size"], spatial, 1)
    dilation = pair(arguments.get("dilation", 1), spatial, 1)
    before = pair(arguments["padding"], spatial, 0)
    padding = padding_for(Axes.of(value.shape), Axes.of(call.output_shape), kernel, stride, dilation, before)
    return value, {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def window_of_adaptive_pool(call: Call, spatial: int) -> tuple[Value | Moved, dict[str, Any]]:
    """The input and the window of an adaptive average pool.

    Where torch's windows have different sizes, elements of the input are repeated.

    Raises:
        UnsupportedNodeError: these would be too many.
    """
    value = spatial_input(call, "self", spatial)
    input_, output = Axes.of(value.shape), Axes.of(call.output_shape)
    every = in_one_layer(input_, output)
    if every is None:
        raise UnsupportedNodeError(
            f"its windows have different sizes: {call.output_shape[1:]} does not divide {value.shape[1:]}",
            "choose an output size that divides the input's, or a pool with a fixed kernel",
        )
    height, width = every
    steps = tuple(
        f"index_select(dim={dim}, index={list(axis.elements)})"
        for dim, axis in zip((spatial, spatial + 1), (height, width), strict=True)
        if axis.elements is not None
    )
    window = {"kernel": (height.kernel, width.kernel), "stride": (height.stride, width.stride)}
    return Moved(value, steps) if steps else value, window


def pool_of_reduction(
    call: Call, kind: type[PoolOperator]
) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
    """The operator of a reduction (mean, amax) over any dimensions: a pool over height, width or both, of a
    tensor whose channels are dimensions that stay.

    Raises:
        UnsupportedNodeError: it reduces the batch.
    """
    arguments, value = call.arguments, call.input("self")
    rank = len(value.shape) + 1
    reduced = sorted({dim % rank for dim in arguments["dim"] or range(rank)})
    if reduced[0] == 0:
        raise UnsupportedNodeError("it reduces the batch", "reduce dimensions of the samples")
    kept = [dim for dim in range(1, rank) if dim not in reduced]
    spatial = reduced[0] >= 2 and rank <= 4
    if spatial and (arguments["keepdim"] or reduced != [3]):
        axes = Axes.of(value.shape)
        # Height is dimension rank - 2, width rank - 1; [N, channels, length] has only the width.
        window = (axes.height if rank - 2 in reduced else 1, axes.width if rank - 1 in reduced else 1)
        return kind(kernel=window, squeezed=() if arguments["keepdim"] else tuple(reduced)), [value], {}
    # The last dimension that stays is the channels of all reduced elements, for each of the others that stay.
    channels, rows = kept[-1:], kept[:-1]
    sides = [prod(value.shape[dim - 1] for dim in dims) for dims in (channels, rows, reduced)]
    steps = (
        f"permute(dims={[0, *channels, *rows, *reduced]})",
        f"reshape({', '.join(map(str, sides))})",
    )
    others = [value.shape[dim - 1] for dim in (*channels, *rows)]
    back = [f"reshape({', '.join(map(str, others))})"]
    if rows:
        back.append(f"movedim.int(source=1, destination={len(kept)})")
    back.append(f"reshape({', '.join(map(str, call.output_shape))})")
    return MovedBack(kind(kernel=(1, sides[2])), (tuple(back),)), [Moved(value, steps)], {}
