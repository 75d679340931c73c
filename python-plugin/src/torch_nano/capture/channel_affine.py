"""Arithmetic with constants: ``(x - mean) / std``, ``x * g + b``, ``x / 255``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.layout import Shape
from ..ir.affine import AffineOperator
from ..ir.call import Call, ComputedName, Moved, MovedBack, ParameterName, Steps, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value

aten = torch.ops.aten

#: ATen's function -> what it makes of x and the constant t, and what that multiplies x by and adds, given t.
_Function = tuple[Callable[[Tensor, Any], Tensor], Callable[[Tensor], tuple[Any, Any]]]
_FUNCTIONS: Mapping[str, _Function] = {
    "add": (lambda x, t: x + t, lambda t: (1.0, t)),
    "sub": (lambda x, t: x - t, lambda t: (1.0, -t)),
    "rsub": (lambda x, t: t - x, lambda t: (-1.0, t)),
    "mul": (lambda x, t: x * t, lambda t: (t, 0.0)),
    "div": (lambda x, t: x / t, lambda t: (t.reciprocal(), 0.0)),
}


@dataclass(frozen=True)
class ChannelAffine(AffineOperator):
    """``x + t``, ``x - t``, ``t - x``, ``x * t`` or ``x / t``, t a number or one number for each channel.

    The parameter "constant" is t unless :attr:`number` is.

    >>> x = torch.tensor([[3.0, 5.0]])
    >>> Layer(ChannelAffine("sub"), [x], {"constant": torch.tensor([1.0, 2.0])}).float_run()
    (tensor([[2., 3.]]),)
    """

    name = "channel_affine"

    #: "add", "sub", "rsub" (t - x), "mul" or "div".
    function: str
    #: t, if it is the same number for all channels and no parameter.
    number: float | None = None

    @property
    def elementwise(self) -> bool:
        return self.number is not None

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.add.Tensor,
            aten.div.Tensor,
            aten.mul.Tensor,
            aten.rsub.Scalar,
            aten.rsub.Tensor,
            aten.sub.Tensor,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        function, arguments = call.function, call.arguments
        x, constant = arguments["self"], arguments["other"]
        if not isinstance(x, Value):
            x, constant = constant, x
            function = {"sub": "rsub", "rsub": "sub"}.get(function, function)
        if not isinstance(constant, ParameterName | ComputedName):
            if not isinstance(constant, int | float):
                raise UnsupportedNodeError(f"its constant is a {type(constant).__name__}", "make it a number")
            return cls(function, float(constant)), [x], {}
        operator, parameters = cls(function), {"constant": str(constant)}
        tensor = call.tensors[constant]
        _check(tensor, x.shape)
        dims = _varying(tuple(tensor.shape), len(x.shape))
        if dims in ((), (1,)):
            return operator, [x], parameters
        to_channels, back = _channels_of(x.shape, dims)
        return MovedBack(operator, (back,)), [Moved(x, to_channels)], parameters

    def as_function(self) -> tuple[str, tuple[tuple[str, float], ...]] | None:
        """ATen's name and arguments of this function of one variable; None with a parameter."""
        if self.number is None:
            return None
        return f"{self.function}.Scalar", (("other", self.number),)

    def scale_and_shift(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.number is None:
            constant = parameters["constant"].double().reshape(-1)
        else:
            constant = torch.tensor(self.number, dtype=torch.float64)
        scale, shift = _FUNCTIONS[self.function][1](constant)
        zeros = torch.zeros_like(constant)
        return zeros + scale, zeros + shift

    def float_run(self, layer: Layer) -> Tensor:
        constant: Any = layer.parameters.get("constant", self.number)
        if isinstance(constant, Tensor):
            constant = constant.reshape(-1, *[1] * (layer.input.dim() - 2))
        return _FUNCTIONS[self.function][0](layer.input, constant)


def _check(constant: Tensor, x: Shape) -> None:
    """Refuses a constant that is not finite, or changes the shape of the tensor that it is combined with.

    Raises:
        UnsupportedNodeError: it says which shapes do not.
    """
    printed = ", ".join(["N", *map(str, x)])
    shape = tuple(constant.shape)
    full = (1,) * (len(x) + 1 - len(shape)) + shape
    fits = len(full) == len(x) + 1 and full[0] == 1
    if not fits or any(mine not in (1, side) for mine, side in zip(full[1:], x, strict=True)):
        raise UnsupportedNodeError(
            f"its constant has shape {list(shape)}; the tensor is [{printed}]",
            "expand the tensor first, to the shape of the result",
        )
    if not bool(constant.isfinite().all()):
        raise UnsupportedNodeError(
            "its constant has infinite numbers or NaN, which int8 has not",
            "use finite numbers, or mask directly before a softmax",
        )


def _varying(constant: Shape, rank: int) -> tuple[int, ...]:
    """The dimensions, of a tensor [N, ...] with `rank` of a sample, along which a constant varies."""
    first = rank + 1 - len(constant)
    return tuple(first + index for index, side in enumerate(constant) if side > 1)


def _channels_of(x: Shape, dims: Sequence[int]) -> tuple[Steps, Steps]:
    """The moves that make one dimension of channels of `dims`, and those that undo them."""
    order = [*dims, *(dim for dim in range(1, len(x) + 1) if dim not in dims)]
    sides = [x[dim - 1] for dim in order]
    channels, pixels = prod(sides[: len(dims)]), prod(sides[len(dims) :])
    undone = [0, *(1 + order.index(dim) for dim in range(1, len(x) + 1))]
    to_channels = f"permute(dims={[0, *order]})", f"reshape({channels}, {pixels})"
    back = f"reshape({', '.join(map(str, sides))})", f"permute(dims={undone})"
    return to_channels, back
