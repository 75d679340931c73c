"""Functions of one variable: one operator of nano-core for all, a lookup table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_nano._native import look_up

from ..arithmetic.fixed_point import is_native, lookup, round_half_away
from ..arithmetic.layout import channels_last, elements, empty_channels_last
from ..arithmetic.quantization import Quantization
from ..errors import QuantizationError
from ..ir.call import Call
from ..ir.encoding import decode_text
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import FUNCTIONS, Definition, Function
from ..library.train_run import define_training
from ._interpolation import interpolate, interpolation_table

#: The ATen functions of one variable that become tables. A new one is one line.
UNARY_FUNCTIONS = (
    "abs",
    "asinh",
    "atan",
    "ceil",
    "celu",
    "cos",
    "elu",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "frac",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_sigmoid",
    "mish",
    "neg",
    "reciprocal",
    "round",
    "rsqrt",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinc",
    "softplus",
    "softshrink",
    "sqrt",
    "square",
    "tanh",
    "threshold",
    "trunc",
)
#: Those of a tensor and a number, by ATen's name with the overload.
_WITH_NUMBER = ("fmod.Scalar", "pow.Scalar", "pow.Tensor_Scalar", "remainder.Scalar", "round.decimals")
#: Those that return truth values, on the device the numbers 0 and 1.
_TRUTH_VALUES = ("eq.Scalar", "ge.Scalar", "gt.Scalar", "le.Scalar", "logical_not", "lt.Scalar", "ne.Scalar")

aten = torch.ops.aten


class TableOperator(Operator):
    """A function of one variable: ``y = table[x + 128]``; of int16, between every 128th entry, a line."""

    name = "table"
    elementwise = True
    pixelwise = True

    @abstractmethod
    def function_of(self, x: Tensor) -> Tensor:
        """The function, element by element."""

    @property
    @abstractmethod
    def calls(self) -> Sequence[str]:
        """The names of the ATen calls that it consists of, with overloads."""

    @property
    def title(self) -> str:
        """What to call it in a message.

        >>> Table("pow.Scalar", (("self", 2.0),)).title
        'pow'
        """
        return ", ".join(dict.fromkeys(call.partition(".")[0] for call in self.calls))

    def float_run(self, layer: Layer) -> Tensor:
        return self.function_of(layer.input)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        return {"table": _table(self, layer.input_quantization, layer.output_quantization)}

    def integer_run(self, layer: Layer) -> Tensor:
        return _look_up(layer.tensors["table"], layer.input)

    def train_run(self, layer: Layer) -> Tensor:
        input_, output = layer.input_quantization, layer.output_quantization
        y: Tensor = torch.ops.torch_nano.train_table(
            layer.input,
            self.text,
            input_.scale,
            input_.zero_point,
            output.scale,
            output.zero_point,
            output.dtype,
        )
        return y


@lru_cache(maxsize=64)
def _table(operator: TableOperator, input_: Quantization, output: Quantization) -> Tensor:
    """int8 [256]: ``round(f(s_x * (x - z_x)) * (1 / s_y)) + z_y`` in float32, halves away from zero, clamped.

    TFLM computes the table of its ELU in the same way. int16 [513]: see :func:`interpolation_table`.
    """
    if output.dtype == "int16":
        try:
            return interpolation_table(operator.function_of, input_, output)
        except QuantizationError as error:
            raise QuantizationError(f"{operator.title}: {error}") from error
    x = torch.arange(-128, 128)
    real = (x - input_.zero_point).to(torch.float32) * input_.scale
    y = operator.function_of(real)
    if bool(y.isnan().any()):
        where = float(real[y.isnan()][0])
        low, high = input_.range
        raise QuantizationError(
            f"{operator.title} is not a number at {where:.4g}, and its input can be {low:.4g} to {high:.4g}; "
            "limit it before the function, such as x.clamp(min=1e-3)"
        )
    steps = y * float(np.float32(1) / np.float32(output.scale))
    return (round_half_away(steps) + output.zero_point).clamp(-128, 127).to(torch.int8)


def _look_up(table: Tensor, x: Tensor) -> Tensor:
    """The outputs of a table for integers of its dtype."""
    return interpolate(table, x) if table.dtype == torch.int16 else lookup(table, x)


@lru_cache(maxsize=64)
def _train_tables(encoded: str, input_: Quantization, output: Quantization) -> tuple[Tensor, Tensor]:
    """Of each number of the input the output without its zero point, and its derivative by the input's steps:
    float32 [256], of int16 [65536].
    """
    operator = decode_text(encoded)
    assert isinstance(operator, TableOperator)
    least, most = input_.bounds
    every = torch.arange(least, most + 1)
    values = _look_up(_table(operator, input_, output), every).to(torch.float32) - output.zero_point
    low, high = output.levels

    def slopes() -> Tensor:
        x = (every.to(torch.float32) - input_.zero_point).requires_grad_()
        y = operator.function_of(x * input_.scale) / output.scale
        inside = y.clamp(low - 0.5, high + 0.5)
        # At the end of a function's domain (sqrt at 0) the derivative is infinite.
        if not inside.requires_grad:
            # Of truth values.
            return torch.zeros_like(x)
        return torch.autograd.grad(inside.sum(), x)[0].nan_to_num(0.0, 0.0, 0.0)

    # In a thread of its own: inside a custom operator autograd is off, and torch.compile's modes may be on.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return values, thread.submit(slopes).result()


def _entries(table: Tensor, x: Tensor, zero_point: int) -> Tensor:
    """The entries for integers that are given without their zero point."""
    if is_native(x) and len(table) == 256:
        y = empty_channels_last(x.shape)
        look_up(elements(channels_last(x)).numpy(), elements(y).numpy(), table.numpy(), zero_point)
        return y
    index = (x + (zero_point + len(table) // 2)).to(torch.int32).flatten()
    return channels_last(table.to(x.device).index_select(0, index).reshape(x.shape))


def _train(
    x: Tensor,
    operator: str,
    x_scale: float,
    x_zero_point: int,
    y_scale: float,
    y_zero_point: int,
    dtype: str = "int8",
) -> Tensor:
    input_, output = Quantization(x_scale, x_zero_point, dtype), Quantization(y_scale, y_zero_point, dtype)
    return _entries(_train_tables(operator, input_, output)[0], x, x_zero_point)


def _train_backward(
    grad: Tensor,
    x: Tensor,
    operator: str,
    x_scale: float,
    x_zero_point: int,
    y_scale: float,
    y_zero_point: int,
    dtype: str = "int8",
) -> Tensor:
    input_, output = Quantization(x_scale, x_zero_point, dtype), Quantization(y_scale, y_zero_point, dtype)
    return _entries(_train_tables(operator, input_, output)[1], x, x_zero_point).mul_(grad)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.rest = inputs
    ctx.save_for_backward(x)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x_grad = torch.ops.torch_nano.train_table_backward(grad, *ctx.saved_tensors, *ctx.rest)
    return (x_grad, *[None] * len(ctx.rest))


_QUANTIZATIONS = "float x_scale, int x_zero_point, float y_scale, int y_zero_point, str dtype='int8'"
_ARGUMENTS = f"Tensor x, str operator, {_QUANTIZATIONS}"
define_training(
    f"train_table({_ARGUMENTS}) -> Tensor",
    _train,
    lambda x, *_: empty_channels_last(x.shape, x.device),
    save=_save,
    gradients=_gradients,
)
define_training(
    f"train_table_backward(Tensor grad, {_ARGUMENTS}) -> Tensor",
    _train_backward,
    lambda grad, *_: empty_channels_last(grad.shape, grad.device),
)


@dataclass(frozen=True)
class Table(TableOperator):
    """An ATen function of one variable.

    >>> Layer(Table("elu", (("alpha", 2.0),)), [torch.tensor([[1.0, 0.0]])]).float_run()
    (tensor([[1., 0.]]),)
    >>> Layer(Table("pow.Scalar", (("self", 2.0),)), [torch.tensor([[3.0, -1.0]])]).float_run()
    (tensor([[8.0000, 0.5000]]),)
    """

    #: ATen's name, with the overload unless that is "default".
    function: str
    #: The function's further arguments by name.
    arguments: tuple[tuple[str, float | str | None], ...] = ()

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return list(_functions())

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        variable = next(name for name, value in call.arguments.items() if isinstance(value, Value))
        arguments = tuple((name, value) for name, value in call.arguments.items() if name != variable)
        return cls(_functions()[call.target], arguments), [call.input(variable)], {}

    def function_of(self, x: Tensor) -> Tensor:
        return call_elementwise(self.function, [x], self.arguments)

    @property
    def calls(self) -> Sequence[str]:
        return [self.function]


@lru_cache(maxsize=1)
def _functions() -> dict[torch._ops.OpOverload[..., Any], str]:
    """The names of functions by their calls."""
    return {overload(name): name for name in (*UNARY_FUNCTIONS, *_WITH_NUMBER, *_TRUTH_VALUES)}


def call_elementwise(
    name: str, operands: Sequence[Tensor], arguments: Sequence[tuple[str, float | str | None]]
) -> Tensor:
    """Calls an ATen function by its name, such as "elu" or "pow.Scalar".

    Truth values, as results and as conditions, are the numbers 0 and 1.

    Args:
        operands: tensors, for the first arguments that are not in `arguments`.
    """
    function, given = overload(name), dict(arguments)
    names = [argument.name for argument in function._schema.arguments if argument.name not in given]
    filled = dict(zip(names, operands, strict=False))
    if "condition" in filled:
        filled["condition"] = filled["condition"] != 0
    y: Tensor = function(**filled, **given)
    return y.to(operands[0].dtype) if y.dtype == torch.bool else y


def overload(name: str) -> torch._ops.OpOverload[..., Any]:
    """The ATen call of a name such as "elu" or "pow.Scalar"."""
    function, _, suffix = name.partition(".")
    found: torch._ops.OpOverload[..., Any] = getattr(getattr(aten, function), suffix or "default")
    return found


_call = Definition(Table)


def unary(name: str) -> Function:
    """The function of ``torch_nano.functional`` for an ATen function of one variable."""

    def function(
        x: Tensor, x_quantization: Quantization, y_quantization: Quantization, **arguments: float | str
    ) -> Tensor:
        return _call(Table(name, tuple(arguments.items())), [x], [x_quantization], y_quantization)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{name} of int8 or int16: ``y = round({name}(s_x * (x - z_x)) / s_y) + z_y``.

    The gradient is that of the float function, zero where the output saturates.

    Args:
        x: float32 [N, ...], integers of the dtype of both quantizations.
        arguments: further arguments of ``torch.ops.aten.{name}``, by name.

    Returns:
        float32 of the same shape that holds integers of that dtype.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.
        QuantizationError: int16 has no table of the function, as it jumps.
    """
    return function


FUNCTIONS.update({name: unary(name) for name in (*UNARY_FUNCTIONS, "clamp")})
