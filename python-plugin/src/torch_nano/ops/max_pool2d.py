"""Max pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._window import Pair, PoolOperator, pair, pool_of_reduction, spatial_dimensions, window_of_pool

aten = torch.ops.aten


@dataclass(frozen=True)
class MaxPool2d(PoolOperator):
    """The largest element under a window, without the padding.

    >>> pool = MaxPool2d(kernel=(1, 2), stride=(1, 2))
    >>> Layer(pool, [torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])]).float_run()
    (tensor([[[2., 4.]]]),)
    """

    name = "max_pool2d"

    dilation: Pair = (1, 1)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [aten.max_pool2d.default, aten.max_pool1d.default, aten.amax.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        if call.target is aten.amax.default:
            return pool_of_reduction(call, cls)
        value, window = window_of_pool(call, spatial=1 if call.target is aten.max_pool1d.default else 2)
        return cls(**window), [value], {}

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.pad(x, -torch.inf), self.kernel, self.stride, 0, self.dilation)

    def integer_run(self, layer: Layer) -> Tensor:
        return self.of(layer.input.to(torch.float32)).to(layer.input.dtype)

    def train_run(self, layer: Layer) -> Tensor:
        return self.of(layer.input)


_call = Definition(MaxPool2d)


@functional
def max_pool2d(
    x: Tensor,
    quantization: Quantization,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Max pooling of int8 or int16 numbers, without the padding; the quantization is kept.

    The gradient goes to the largest element. Each spatial argument is a number or one number per dimension.

    Args:
        x: float32 [N, channels, height, width] or [N, channels, length], integers of the given dtype.
        stride: the kernel's size if None.

    Returns:
        float32 [N, channels, ...] that holds integers of that dtype.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> max_pool2d(torch.tensor([[[1.0, 2.0, 4.0, 3.0]]]), Quantization(1.0, 0), 2)
    tensor([[[2., 4.]]])
    """
    spatial = spatial_dimensions(x)
    height, width = pair(padding, spatial, 0)
    sides = pair(kernel, spatial, 1)
    steps = sides if stride is None else pair(stride, spatial, 1)
    operator = MaxPool2d(sides, steps, (height, height, width, width), dilation=pair(dilation, spatial, 1))
    return _call(operator, [x], [quantization])
