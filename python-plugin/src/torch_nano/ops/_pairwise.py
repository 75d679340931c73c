"""Elementwise operators of two tensors, with broadcasting."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import look_up_pairs

from ..arguments import shown
from ..arithmetic.clamp import clamp_steps, integer_clamp
from ..arithmetic.fixed_point import is_native
from ..arithmetic.layout import Shape, channels_last, elements, empty_channels_last
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call, UnsupportedNodeError
from ..ir.encoding import decode_text
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.train_run import define_training
from ._clamp import ClampedOperator

#: The number of pairs of int8.
_PAIRS = 2**16


@dataclass(frozen=True)
class PairwiseOperator(ClampedOperator):
    """``y = clamp(combine(a, b))`` of two tensors of the same rank, with broadcasting.

    Along each dimension they have the same length, or one of them has length 1 and is repeated, as in torch.
    """

    pixelwise = True
    elementwise = True

    @classmethod
    @abstractmethod
    def combine(cls, a: Tensor, b: Tensor) -> Tensor:
        """The operator on real numbers, without its clamp."""

    @classmethod
    @abstractmethod
    def combine_integers(
        cls, a: Tensor, b: Tensor, quantizations: tuple[Quantization, Quantization, Quantization]
    ) -> Tensor:
        """The output in nano-core's arithmetic, before its zero point is added and it is clamped.

        Args:
            a: int64, minus its zero point.
            b: int64, minus its zero point.
            quantizations: those of a, b and the output.
        """

    @classmethod
    @abstractmethod
    def slopes(cls, a: Tensor, b: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The derivatives of :meth:`combine` with respect to a and b."""

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        values = [call.input("self"), call.input("other")]
        first, second = (value.shape for value in values)
        if not _broadcasts(first, second):
            raise UnsupportedNodeError(
                f"nano-core does not broadcast {first} and {second}, which differ in rank",
                "give both the same number of dimensions, of length 1 where one is repeated",
            )
        return cls(), values, {}

    def float_run(self, layer: Layer) -> Tensor:
        return self.activate(self.combine(*layer.inputs))

    def integer_run(self, layer: Layer) -> Tensor:
        first, second = layer.input_quantizations
        quantizations = (first, second, layer.output_quantization)
        a, b = (x.to(torch.int64) for x in layer.inputs)
        # Of few pairs a table would take longer to make; of int16 there are too many.
        if layer.output_quantization.dtype != "int8" or max(a.numel(), b.numel()) < _PAIRS:
            return _computed(self, a - first.zero_point, b - second.zero_point, quantizations)
        table = _table(self, *quantizations)
        return table.to(a.device)[(a + 128) * 256 + b + 128]

    def train_run(self, layer: Layer) -> Tensor:
        arguments: list[float | str] = []
        for quantization in (*layer.input_quantizations, layer.output_quantization):
            arguments += [quantization.scale, quantization.zero_point]
        arguments.append(layer.output_quantization.dtype)
        y: Tensor = torch.ops.torch_nano.train_pairs(*layer.inputs, self.text, *arguments)
        return y


def _computed(
    operator: PairwiseOperator,
    a: Tensor,
    b: Tensor,
    quantizations: tuple[Quantization, Quantization, Quantization],
) -> Tensor:
    """The output for int64 inputs minus their zero points, of the output's dtype."""
    output = quantizations[2]
    low, high = integer_clamp(operator.clamp_low, operator.clamp_high, output)
    combined = operator.combine_integers(a, b, quantizations)
    return (combined + output.zero_point).clamp(low, high).to(output.torch_dtype)


@lru_cache(maxsize=64)
def _table(operator: PairwiseOperator, a: Quantization, b: Quantization, output: Quantization) -> Tensor:
    """Look-up table, int8 [65536]: the output for a pair of inputs is entry ``256 * (a + 128) + b + 128``."""
    every = torch.arange(-128, 128)
    first, second = (every - a.zero_point)[:, None], every - b.zero_point
    return _computed(operator, first, second, (a, b, output)).flatten()


def _train(
    a: Tensor,
    b: Tensor,
    operator: str,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    y_scale: float,
    y_zero_point: int,
    dtype: str = "int8",
) -> Tensor:
    first, second = Quantization(a_scale, a_zero_point, dtype), Quantization(b_scale, b_zero_point, dtype)
    quantizations = (first, second, Quantization(y_scale, y_zero_point, dtype))
    if dtype != "int8":
        integers = _computed(_decode(operator), a.to(torch.int64), b.to(torch.int64), quantizations)
        return channels_last(integers.to(torch.float32).sub_(y_zero_point))
    table = _table(_decode(operator), *quantizations)
    a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    if not is_native(a):
        index = (a + (a_zero_point + 128)).mul_(256).add_(b + (b_zero_point + 128)).to(torch.int32).flatten()
        entries = table.to(a.device).index_select(0, index).reshape(a.shape)
        return channels_last(entries.to(torch.float32).sub_(y_zero_point))
    y = empty_channels_last(a.shape)
    first_numbers, second_numbers = (elements(channels_last(tensor)).numpy() for tensor in (a, b))
    zero_points = (a_zero_point, b_zero_point, y_zero_point)
    look_up_pairs(first_numbers, second_numbers, elements(y).numpy(), table.numpy(), zero_points)
    return y


def _fake(a: Tensor, b: Tensor, *_: Any) -> Tensor:
    shape = torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
    return empty_channels_last(shape, a.device)


def _train_backward(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    y: Tensor,
    operator: str,
    a_scale: float,
    b_scale: float,
    y_scale: float,
    y_zero_point: int,
    dtype: str = "int8",
) -> tuple[Tensor, Tensor]:
    pairwise = _decode(operator)
    output = Quantization(y_scale, y_zero_point, dtype)
    low, high = clamp_steps(pairwise.clamp_low, pairwise.clamp_high, output)
    inside = torch.ops.aten.hardtanh_backward(grad, y, low, high)
    slopes = pairwise.slopes(a * a_scale, b * b_scale)
    gradients = [
        channels_last((inside * (slope * (scale / y_scale))).sum_to_size(x.shape))
        for x, slope, scale in zip((a, b), slopes, (a_scale, b_scale), strict=True)
    ]
    return gradients[0], gradients[1]


def _decode(text: str) -> PairwiseOperator:
    operator = decode_text(text)
    assert isinstance(operator, PairwiseOperator)
    return operator


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, operator, a_scale, _, b_scale, _, y_scale, y_zero_point, dtype = inputs
    ctx.save_for_backward(a, b, output)
    ctx.rest = (operator, a_scale, b_scale, y_scale, y_zero_point, dtype)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.torch_nano.train_pairs_backward(grad, *ctx.saved_tensors, *ctx.rest)
    return (*gradients, *[None] * 8)


define_training(
    "train_pairs(Tensor a, Tensor b, str operator, float a_scale, int a_zero_point, float b_scale, "
    "int b_zero_point, float y_scale, int y_zero_point, str dtype='int8') -> Tensor",
    _train,
    _fake,
    save=_save,
    gradients=_gradients,
)
define_training(
    "train_pairs_backward(Tensor grad, Tensor a, Tensor b, Tensor y, str operator, float a_scale, "
    "float b_scale, float y_scale, int y_zero_point, str dtype='int8') -> (Tensor, Tensor)",
    _train_backward,
    lambda grad, a, b, *_: tuple(empty_channels_last(x.shape, x.device) for x in (a, b)),
)


def check_pairs(name: str, a: Tensor, b: Tensor) -> None:
    """Checks that nano-core can broadcast two tensors with batch.

    Raises:
        InputError: they cannot, or are no tensors.
    """
    for label, x in (("a", a), ("b", b)):
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: {label} is {shown(x)}; expected a tensor [N, ...]")
    if a.shape[:1] != b.shape[:1] or not _broadcasts(tuple(a.shape[1:]), tuple(b.shape[1:])):
        raise InputError(
            f"{name}: the shapes {tuple(a.shape)} and {tuple(b.shape)} differ and cannot be broadcast; "
            "expected one batch and rank, and lengths that are equal, or 1 in one of the two"
        )


def _broadcasts(first: Shape, second: Shape) -> bool:
    """Whether nano-core can broadcast two shapes without batch.

    >>> _broadcasts((16, 1, 1), (16, 8, 8)), _broadcasts((1, 8, 8), (16, 1, 8)), _broadcasts((8,), (16, 8, 8))
    (True, True, False)
    """
    return len(first) == len(second) and all(
        length == other or 1 in (length, other) for length, other in zip(first, second, strict=True)
    )
