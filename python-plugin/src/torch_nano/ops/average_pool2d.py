"""Average pooling, local and global."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.straight_through import replace_forward
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._window import (
    PoolOperator,
    in_2d,
    pair,
    pool_of_reduction,
    spatial_dimensions,
    window_of_adaptive_pool,
    window_of_pool,
)

aten = torch.ops.aten
#: float32 holds every integer below.
_FLOAT32_INTEGERS = 2**24


@dataclass(frozen=True)
class AveragePool2d(PoolOperator):
    """The mean under a window; padding counts as zeros with ``count_include_pad``, else it is left out.

    >>> pool = AveragePool2d(kernel=(1, 2), stride=(1, 2))
    >>> Layer(pool, [torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])]).float_run()
    (tensor([[[1.5000, 3.5000]]]),)
    """

    name = "average_pool2d"

    count_include_pad: bool = False

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.avg_pool2d.default,
            aten.avg_pool1d.default,
            aten.adaptive_avg_pool2d.default,
            aten.adaptive_avg_pool1d.default,
            aten.mean.dim,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        spatial = 1 if call.target in (aten.avg_pool1d.default, aten.adaptive_avg_pool1d.default) else 2
        if call.target is aten.mean.dim:
            return pool_of_reduction(call, cls)
        if call.target in (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default):
            value, window = window_of_adaptive_pool(call, spatial)
            return cls(**window), [value], {}
        value, window = window_of_pool(call, spatial)
        del window["dilation"]
        top, bottom, left, right = window["padding"]
        # torch never counts the places that ceil_mode adds; without padding there are no others.
        include = bool(call.arguments["count_include_pad"]) and (top > 0 or left > 0)
        if include and (top, left) != (bottom, right):
            raise UnsupportedNodeError(
                "with ceil_mode its padding counts in some windows only", "pass count_include_pad=False"
            )
        return cls(**window, count_include_pad=include), [value], {}

    def pool(self, x: Tensor) -> Tensor:
        return self._sum(x, 0.0) / self._count(x)

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {**super().attributes(layer), "count_include_pad": int(self.count_include_pad)}

    def integer_run(self, layer: Layer) -> Tensor:
        padding = float(layer.input_quantization.zero_point) if self.count_include_pad else 0.0

        def pool(x: Tensor) -> Tensor:
            return _rounded_mean(self._sum(x, padding), self._count(x)).to(layer.input.dtype)

        return self.squeeze(in_2d(pool, layer.input.to(torch.float64)))

    def train_run(self, layer: Layer) -> Tensor:
        zero_point = layer.input_quantization.zero_point
        low, high = layer.input_quantization.bounds

        def pool(x: Tensor) -> Tensor:
            total, count = self._sum(x, 0.0), self._count(x)
            # The sum of the integers with their zero point: halves are rounded away from its zero.
            exact = _rounded_mean(total.detach() + zero_point * count, count) - zero_point
            # A mean of -0.3 is truncated to -0.0; adding zero makes it 0.0.
            return replace_forward(total / count, exact.to(torch.float32).add_(0.0))

        # The magnitude of an integer, with or without its zero point, is less than the number of levels.
        exact_sums = self.kernel[0] * self.kernel[1] * (high - low + 1) <= _FLOAT32_INTEGERS
        return self.squeeze(in_2d(pool, layer.input if exact_sums else layer.input.double()))

    def _sum(self, x: Tensor, padding: float) -> Tensor:
        """The sum under every window, of any float dtype."""
        return F.avg_pool2d(self.pad(x, padding), self.kernel, self.stride, divisor_override=1)

    def _count(self, x: Tensor) -> Tensor:
        """The number of elements under every window, to broadcast against the sum."""
        if self.count_include_pad or not any(self.padding):
            return x.new_full((), self.kernel[0] * self.kernel[1])
        return self._sum(x.new_ones(1, 1, *x.shape[2:]), 0.0)


def _rounded_mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count`` of integers, halves away from zero.

    Exact in float32 where the sum is below 2^24: the rounding error of a quotient is then smaller than its
    distance from an integer.

    >>> _rounded_mean(torch.tensor([3.0, -3.0, 2.0]), torch.tensor(2.0))
    tensor([ 2., -2.,  1.])
    """
    half = torch.copysign((count / 2).floor(), total)
    return ((total + half) / count).trunc()


_call = Definition(AveragePool2d)


@functional
def average_pool2d(
    x: Tensor,
    quantization: Quantization,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """Average pooling of int8 or int16 numbers: the mean, halves rounded away from zero.

    The quantization is kept, the gradient straight-through. Spatial arguments: a number or one per dimension.

    Args:
        x: float32 [N, channels, height, width] or [N, channels, length], integers of the given dtype.
        stride: the kernel's size if None.
        count_include_pad: whether padding counts as the real number 0, or is left out.

    Returns:
        float32 [N, channels, ...] that holds integers of that dtype.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> average_pool2d(torch.tensor([[[1.0, 2.0, -4.0, -3.0]]]), Quantization(1.0, 0), 2)
    tensor([[[ 2., -4.]]])
    """
    spatial = spatial_dimensions(x)
    height, width = pair(padding, spatial, 0)
    sides = pair(kernel, spatial, 1)
    steps = sides if stride is None else pair(stride, spatial, 1)
    around = (height, height, width, width)
    operator = AveragePool2d(sides, steps, around, count_include_pad=count_include_pad)
    return _call(operator, [x], [quantization])
