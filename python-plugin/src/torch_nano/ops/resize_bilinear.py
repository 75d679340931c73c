"""Bilinear interpolation to another height and width, and linear interpolation to another length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call, Moved, MovedBack, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._window import Axes, Pair, in_2d, pair, spatial_dimensions, spatial_input

aten = torch.ops.aten
#: Fractional bits of steps and starts, and of positions: nano-core's.
_STEP_BITS, _POSITION_BITS = 20, 10
#: Steps of so many pixels do not fit 32 bits.
_LARGEST_STEP = 2 ** (31 - _STEP_BITS)


@dataclass(frozen=True)
class ResizeBilinear(Operator):
    """The weighted mean of the four inputs around each output's position.

    >>> resize = ResizeBilinear(size=(1, 4))
    >>> Layer(resize, [torch.tensor([[[0.0, 4.0]]])]).float_run()
    (tensor([[[0., 1., 3., 4.]]]),)
    """

    name = "resize_bilinear"

    #: Height and width of the output; height 1 for [N, channels, length].
    size: Pair
    #: Whether input and output have the centers of their corner pixels in common, or the pixels' corners.
    align_corners: bool = False
    #: Outputs per input along height and width, where they are not the ratio of the sizes (scale_factor).
    scales: tuple[float | None, float | None] = (None, None)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.upsample_bilinear2d.vec, aten.upsample_linear1d.vec]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        spatial = 1 if call.target is aten.upsample_linear1d.vec else 2
        value = spatial_input(call, "input", spatial)
        factors = [None] * (2 - spatial) + list(call.arguments["scale_factors"] or [None] * spatial)
        size, align_corners = Axes.of(call.output_shape), bool(call.arguments["align_corners"])
        # torch ignores the factors of aligned corners.
        scales = (None, None) if align_corners else (factors[0], factors[1])
        resize = cls((size.height, size.width), align_corners, scales)
        largest = max(step for _, step in resize.samples(Axes.of(value.shape))) >> _STEP_BITS
        if largest >= _LARGEST_STEP:
            raise UnsupportedNodeError(
                f"its samples are {largest} pixels apart; expected less than {_LARGEST_STEP}",
                "use a pool, which reads all pixels",
            )
        return resize, [value], {}

    def samples(self, input_: Pair) -> tuple[Pair, Pair]:
        """The first position and the step along height and width, with 20 fractional bits."""
        height, width = (self._samples(side, axis) for axis, side in enumerate(input_))
        return height, width

    def _samples(self, side: int, axis: int) -> Pair:
        outputs, scale = self.size[axis], self.scales[axis]
        if self.align_corners:
            start, step = 0.0, (side - 1) / max(outputs - 1, 1)
        else:
            step = 1 / scale if scale else side / outputs
            start = (step - 1) / 2
        return round(start * 2**_STEP_BITS), round(step * 2**_STEP_BITS)

    def attributes(self, layer: Layer) -> dict[str, int]:
        (shape,) = layer.input_shapes
        attributes = {"output_height": self.size[0], "output_width": self.size[1]}
        for name, (start, step) in zip(("height", "width"), self.samples(Axes.of(shape)), strict=True):
            attributes |= {f"start_{name}": start, f"step_{name}": step}
        return attributes

    def float_run(self, layer: Layer) -> Tensor:
        def resize(x: Tensor) -> Tensor:
            result: Tensor = aten.upsample_bilinear2d.default(x, self.size, self.align_corners, *self.scales)
            return result

        return in_2d(resize, layer.input)

    def integer_run(self, layer: Layer) -> Tensor:
        return in_2d(self._integer_run, layer.input.to(torch.int32)).to(torch.int8)

    def _integer_run(self, x: Tensor) -> Tensor:
        for dimension, (start, step) in zip((2, 3), self.samples((x.shape[2], x.shape[3])), strict=True):
            first, second, weight = _around(start, step, self.size[dimension - 2], x.shape[dimension])
            weight = weight.to(x.device).reshape(-1, *[1] * (3 - dimension))
            before, after = (x.index_select(dimension, index.to(x.device)) for index in (first, second))
            x = before * ((1 << _POSITION_BITS) - weight) + after * weight
        # A shift rounds halves up: those of negative sums are moved below the half first.
        bits = 2 * _POSITION_BITS
        return (x + (x >> 31) + (1 << (bits - 1))) >> bits


def _around(start: int, step: int, outputs: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after each position along one axis, and the latter's weights in 2^-10.

    >>> [numbers.tolist() for numbers in _around(-(1 << 18), 1 << 19, 4, 2)]
    [[0, 0, 0, 1], [1, 1, 1, 1], [0, 256, 768, 0]]
    """
    shift = _STEP_BITS - _POSITION_BITS
    exact = start + step * torch.arange(outputs)
    positions = ((exact + (1 << (shift - 1))) >> shift).clamp(0, (side - 1) << _POSITION_BITS)
    first = positions >> _POSITION_BITS
    weight = positions & ((1 << _POSITION_BITS) - 1)
    return first, (first + 1).clamp(max=side - 1), weight.to(torch.int32)


_call = Definition(ResizeBilinear)


@functional
def resize_bilinear(
    x: Tensor, quantization: Quantization, size: int | Sequence[int], *, align_corners: bool = False
) -> Tensor:
    """Bilinear interpolation of int8 numbers to a size; the quantization is kept.

    Positions have 10 fractional bits, halves are rounded away from zero. The gradient is that of the float
    interpolation.

    Args:
        x: float32 [N, channels, height, width] or [N, channels, length], integers from -128 to 127.
        size: of the output; a number, or one per dimension.
        align_corners: as in torch's ``interpolate``.

    Returns:
        float32 [N, channels, ...] that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers; or the input is 2048
            times as large as the output or larger.

    >>> resize_bilinear(torch.tensor([[[0.0, 40.0]]]), Quantization(1.0, 0), 4)
    tensor([[[ 0., 10., 30., 40.]]])
    """
    height, width = pair(size, spatial_dimensions(x), 1)
    operator = ResizeBilinear((height, width), align_corners)
    input_ = Axes.of(tuple(x.shape[1:]))
    if max(step for _, step in operator.samples(input_)) >> _STEP_BITS >= _LARGEST_STEP:
        raise InputError(
            f"x has shape {tuple(x.shape)}, {_LARGEST_STEP} times the size {size} or more; use a pool"
        )
    return _call(operator, [x], [quantization])
