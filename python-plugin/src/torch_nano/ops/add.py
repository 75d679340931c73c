"""Element-wise addition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import add_multipliers, look_up_pairs

from ..arithmetic.clamp import clamp_steps, integer_clamp
from ..arithmetic.fixed_point import apply_multipliers, is_native
from ..arithmetic.layout import channels_last, elements, empty_channels_last
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ..library.train_run import define_training
from ._clamp import ClampedOperator

#: Bits by which nano-core raises both inputs before it scales them.
_LEFT_SHIFT = 20


@dataclass(frozen=True)
class Add(ClampedOperator):
    """``y = clamp(a + b)`` of two tensors of one shape.

    >>> Layer(Add(clamp_low=0.0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])]).float_run()
    (tensor([[4., 0.]]),)
    """

    name = "add"
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        if not isinstance(call.arguments["other"], Value):
            raise UnsupportedNodeError(
                "it adds a constant; nano-core adds two tensors of the run",
                "put the constant into the bias of the layer before it",
            )
        values = [call.input("self"), call.input("other")]
        if call.arguments["alpha"] != 1:
            raise UnsupportedNodeError(
                f"it multiplies by alpha = {call.arguments['alpha']}", "leave alpha out"
            )
        if values[0].shape != values[1].shape:
            raise UnsupportedNodeError(
                f"the shapes {values[0].shape} and {values[1].shape} differ; nano-core does not broadcast"
            )
        return cls(), values, {}

    def float_run(self, layer: Layer) -> Tensor:
        a, b = layer.inputs
        return self.activate(a + b)

    def integer_run(self, layer: Layer) -> Tensor:
        sums = _sums(*layer.input_quantizations, layer.output_quantization, *self.integer_bounds(layer))
        a, b = (x.to(torch.int64) + 128 for x in layer.inputs)
        return sums.to(a.device)[a * 256 + b]

    def train_run(self, layer: Layer) -> Tensor:
        arguments: list[float] = []
        for quantization in (*layer.input_quantizations, layer.output_quantization):
            arguments += [quantization.scale, quantization.zero_point]
        y: Tensor = torch.ops.torch_nano.train_add(*layer.inputs, *arguments, self.clamp_low, self.clamp_high)
        return y


@lru_cache(maxsize=64)
def _sums(a: Quantization, b: Quantization, output: Quantization, low: int, high: int) -> Tensor:
    """int8 [65536]: the output for every pair of inputs."""
    every = torch.arange(-128, 128)
    multipliers = add_multipliers(a.scale, b.scale, output.scale)
    first = apply_multipliers((every - a.zero_point) << _LEFT_SHIFT, multipliers[:1])
    second = apply_multipliers((every - b.zero_point) << _LEFT_SHIFT, multipliers[1:2])
    scaled = apply_multipliers(first[:, None] + second, multipliers[2:])
    return (scaled + output.zero_point).clamp(low, high).to(torch.int8).flatten()


_call = Definition(Add, inputs=("a", "b"))


def _train(
    a: Tensor,
    b: Tensor,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    y_scale: float,
    y_zero_point: int,
    clamp_low: float | None,
    clamp_high: float | None,
) -> Tensor:
    first, second = Quantization(a_scale, a_zero_point), Quantization(b_scale, b_zero_point)
    output = Quantization(y_scale, y_zero_point)
    sums = _sums(first, second, output, *integer_clamp(clamp_low, clamp_high, output))
    if not is_native(a):
        index = (a + (a_zero_point + 128)).mul_(256).add_(b + (b_zero_point + 128)).to(torch.int32).flatten()
        entries = sums.to(a.device).index_select(0, index).reshape(a.shape)
        return channels_last(entries.to(torch.float32).sub_(y_zero_point))
    y = empty_channels_last(a.shape)
    first_numbers, second_numbers = (elements(channels_last(tensor)).numpy() for tensor in (a, b))
    zero_points = (a_zero_point, b_zero_point, y_zero_point)
    look_up_pairs(first_numbers, second_numbers, elements(y).numpy(), sums.numpy(), zero_points)
    return y


def _train_backward(
    grad: Tensor,
    y: Tensor,
    a_scale: float,
    b_scale: float,
    y_scale: float,
    y_zero_point: int,
    clamp_low: float | None,
    clamp_high: float | None,
) -> tuple[Tensor, Tensor]:
    low, high = clamp_steps(clamp_low, clamp_high, Quantization(y_scale, y_zero_point))
    inside = channels_last(torch.ops.aten.hardtanh_backward(grad, y, low, high))
    return inside * (a_scale / y_scale), inside.mul_(b_scale / y_scale)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, a_scale, _, b_scale, *rest = inputs
    ctx.save_for_backward(output)
    ctx.rest = (a_scale, b_scale, *rest[1:])


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.torch_nano.train_add_backward(grad, *ctx.saved_tensors, *ctx.rest)
    return (*gradients, *[None] * 8)


define_training(
    "train_add(Tensor a, Tensor b, float a_scale, int a_zero_point, float b_scale, int b_zero_point, "
    "float y_scale, int y_zero_point, float? clamp_low, float? clamp_high) -> Tensor",
    _train,
    lambda a, b, *_: empty_channels_last(a.shape, a.device),
    save=_save,
    gradients=_gradients,
)
define_training(
    "train_add_backward(Tensor grad, Tensor y, float a_scale, float b_scale, float y_scale, "
    "int y_zero_point, float? clamp_low, float? clamp_high) -> (Tensor, Tensor)",
    _train_backward,
    lambda grad, *_: tuple(empty_channels_last(grad.shape, grad.device) for _ in range(2)),
)


@functional
def add(
    a: Tensor,
    b: Tensor,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    clamp_low: float | None = None,
    clamp_high: float | None = None,
) -> Tensor:
    """Addition on int8 numbers: ``y = clamp(round((s_a * (a - z_a) + s_b * (b - z_b)) / s_y) + z_y)``.

    Gradients flow straight through the rounding and are zero where the output saturates.

    Args:
        a: float32 [N, ...], integers from -128 to 127.
        b: the same shape.
        clamp_low: real lower bound of the output (0.0 is a fused ReLU), None for none; clamp_high likewise.

    Returns:
        float32 of that shape that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, or numbers that are no such integers.

    >>> a, b = torch.tensor([[10.0, 100.0]]), torch.tensor([[4.0, 100.0]])
    >>> add(a, b, Quantization(0.5, 0), Quantization(0.25, 0), Quantization(0.5, 0))
    tensor([[ 12., 127.]])
    """
    if a.shape != b.shape:
        raise InputError(f"add: the shapes {tuple(a.shape)} and {tuple(b.shape)} differ; expected one shape")
    operator = Add(clamp_low=clamp_low, clamp_high=clamp_high)
    return _call(operator, [a, b], [a_quantization, b_quantization], y_quantization)
