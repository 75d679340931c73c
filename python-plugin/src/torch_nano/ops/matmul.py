"""Matrix product of two tensors of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic.fixed_point import exact_convolution, is_native, requantize
from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call, Moved, MovedBack, Steps, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional

#: The largest product of two int8 numbers without their zero points, and the bound of exact sums in float32.
_LARGEST_PRODUCT, _FLOAT32_INTEGERS = 255 * 255, 2**24


@dataclass(frozen=True)
class Matmul(Operator):
    """``y = a @ b`` of two values, channels first: the columns of each matrix are the channels.

    a is [N, k, ..., m], b is [N, n, ..., k], and y is [N, n, ..., m]. With ``transpose_b``, b is
    [N, k, ..., n].

    >>> a, b = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0, 4.0]]])
    >>> Layer(Matmul(), [a, b]).float_run()
    (tensor([[[11.]]]),)
    """

    name = "matmul"

    transpose_b: bool = False

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.matmul.default, torch.ops.aten.bmm.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        second = "mat2" if call.function == "bmm" else "other"
        a, b = call.input("self"), call.input(second)
        if len(a.shape) != len(b.shape) or len(a.shape) < 2:
            raise UnsupportedNodeError(
                f"it multiplies tensors of shapes {a.shape} and {b.shape} besides the batch; nano-core "
                "multiplies matrices of one sample, (..., m, k) and (..., k, n), of one rank",
                "give both a dimension for the batch, and unsqueeze a vector",
            )
        *batch, rows, columns = call.output_shape
        values: list[Value | Moved] = [Moved(value, _columns_first(value.shape, batch)) for value in (a, b)]
        back = [f"movedim.int(source=1, destination={3 if batch else 2})"]
        if len(batch) > 1:
            back.append(f"reshape({', '.join(map(str, (*batch, rows, columns)))})")
        return MovedBack(cls(), (tuple(back),)), values, {}

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"transpose_b": int(self.transpose_b)}

    def float_run(self, layer: Layer) -> Tensor:
        a, b = (x.movedim(1, -1) for x in layer.inputs)
        return torch.matmul(a, b.transpose(-2, -1) if self.transpose_b else b).movedim(-1, 1)

    def integer_run(self, layer: Layer) -> Tensor:
        of_a, of_b = layer.input_quantizations
        a, output = layer.inputs[0], layer.output_quantization
        # Sums of integers below the bound are exact in any order.
        exact = is_native(a) and a.shape[1] * _LARGEST_PRODUCT < _FLOAT32_INTEGERS
        dtype = torch.float32 if exact else torch.float64
        inputs = [
            x.to(dtype) - quantization.zero_point
            for x, quantization in zip(layer.inputs, layer.input_quantizations, strict=True)
        ]
        with exact_convolution(a.device):
            sums = self.float_run(Layer(self, inputs))
        multiplier = quantize_multiplier(of_a.scale * of_b.scale / output.scale)
        return requantize(sums, [multiplier], output.zero_point, output.bounds)


def _columns_first(shape: Shape, batch: Sequence[int]) -> Steps:
    """The moves from (..., rows, columns) to (columns, rows), or with a batch of matrices to (columns, batch,
    rows).
    """
    *of_value, rows, columns = shape
    steps = []
    if of_value != list(batch):
        repeats = [whole // length for whole, length in zip(batch, of_value, strict=True)]
        steps.append(f"repeat(repeats={[1, *repeats, 1, 1]})")
    if len(batch) > 1:
        steps.append(f"reshape({prod(batch)}, {rows}, {columns})")
    return (*steps, f"movedim.int(source={3 if batch else 2}, destination=1)")


_call = Definition(Matmul, inputs=("a", "b"))


@functional
def matmul(
    a: Tensor,
    b: Tensor,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    transpose_b: bool = False,
) -> Tensor:
    """Int8 matrix product: ``y = clamp(requantize((a - z_a) @ (b - z_b)) + z_y)``.

    The accumulator is requantized with the multiplier ``s_a * s_b / s_y``, rounded twice as in TFLM. All
    tensors are float32 that holds integers, so that gradients flow to both inputs: straight through the
    rounding, zero where the output saturates.

    Args:
        a: [N, m, k] or [N, batch, m, k], -128 to 127.
        b: [N, k, n] or [N, batch, k, n], -128 to 127; with ``transpose_b`` [N, n, k] or [N, batch, n, k].

    Returns:
        float32 [N, m, n] or [N, batch, m, n] that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, or holds other numbers than these integers.

    >>> a, b = torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[1.0, -2.0], [3.0, 4.0]]])
    >>> matmul(a, b, Quantization(0.5, 0), Quantization(0.5, 1), Quantization(1.0, 0))
    tensor([[[10.,  8.]]])
    """
    inner = b.shape[-1 if transpose_b else -2] if b.dim() > 2 else 0
    if a.dim() != b.dim() or a.dim() not in (3, 4) or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != inner:
        layout = "[N, n, k]" if transpose_b else "[N, k, n]"
        raise InputError(
            f"matmul: the shapes are {tuple(a.shape)} and {tuple(b.shape)}; expected [N, m, k] and {layout}, "
            "or both with a batch after N"
        )
    channels_first = [a.movedim(-1, 1), b.movedim(-1, 1)]
    quantizations = [a_quantization, b_quantization]
    return _call(Matmul(transpose_b), channels_first, quantizations, y_quantization).movedim(1, -1)
