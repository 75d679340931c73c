"""Arithmetic of an input with constants: ``(x - mean) / std``, ``x * g + b``, ``x / 255``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.layout import Shape
from ..ir.affine import AffineOperator
from ..ir.call import Call, ComputedName, ParameterName, UnsupportedNodeError
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
    #: t is multiplied by it first.
    alpha: float = 1.0

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.add.Tensor,
            aten.add_.Tensor,
            aten.div.Tensor,
            aten.div_.Tensor,
            aten.mul.Tensor,
            aten.mul_.Tensor,
            aten.rsub.Scalar,
            aten.rsub.Tensor,
            aten.sub.Tensor,
            aten.sub_.Tensor,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        function, arguments = call.function, call.arguments
        x, constant = arguments["self"], arguments["other"]
        if not isinstance(x, Value):
            x, constant = constant, x
            if function == "div":
                raise UnsupportedNodeError(
                    "it divides by the model's input", "give the network the quotient as its input"
                )
            function = {"sub": "rsub", "rsub": "sub"}.get(function, function)
        alpha = float(arguments.get("alpha", 1.0))
        multiplies_input = (call.function == "rsub") == (x is arguments["self"])
        if alpha != 1.0 and multiplies_input:
            raise UnsupportedNodeError(f"it multiplies the input by alpha = {alpha}", "leave alpha out")
        if not isinstance(constant, ParameterName | ComputedName):
            if not isinstance(constant, int | float):
                raise UnsupportedNodeError(f"its constant is a {type(constant).__name__}", "make it a number")
            return cls(function, float(constant), alpha), [x], {}
        _check_shape(tuple(call.tensors[constant].shape), x.shape)
        return cls(function, alpha=alpha), [x], {"constant": str(constant)}

    def scale_and_shift(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.number is None:
            constant = parameters["constant"].double().reshape(-1) * self.alpha
        else:
            constant = torch.tensor(self.number * self.alpha, dtype=torch.float64)
        scale, shift = _FUNCTIONS[self.function][1](constant)
        zeros = torch.zeros_like(constant)
        return zeros + scale, zeros + shift

    def float_run(self, layer: Layer) -> Tensor:
        constant: Any = layer.parameters.get("constant", self.number)
        return _FUNCTIONS[self.function][0](
            layer.input, constant if self.alpha == 1.0 else constant * self.alpha
        )


def _check_shape(constant: Shape, x: Shape) -> None:
    """Refuses a tensor that is not one number, or one for each channel, in torch's broadcasting to the input
    [N, *x].

    Raises:
        UnsupportedNodeError: it says which shapes are.
    """
    channels = x[0]
    full = (1,) * (len(x) + 1 - len(constant)) + constant
    per_channel = (1, channels, *[1] * (len(x) - 1))
    if full in (per_channel, (1,) * len(per_channel)):
        return
    printed = ", ".join(["N", *map(str, x)])
    raise UnsupportedNodeError(
        f"its constant has shape {list(constant)}; the input is [{printed}]",
        f"one number, or one for each channel: shape {list(per_channel[1:])}",
    )
