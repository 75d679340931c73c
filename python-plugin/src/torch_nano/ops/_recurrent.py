"""What recurrent layers share: gates per hidden unit, of the input and of the state before each step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic.fixed_point import apply_multipliers
from ..arithmetic.quantization import Quantization
from ..arithmetic.weights import quantize_channels
from ..errors import InputError
from ..ir.call import Call, ComputedName, Moved, MovedBack, ParameterName, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library import recurrent_layers as recurrent_layers
from ..library.definition import Parameters

#: The parameters by role, as torch names them without their suffix "_l0".
ROLES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
#: The exponents of the steps of the numbers that sigmoid and tanh read, and of those that they return.
BEFORE, AFTER = -12, -15
_INT32 = torch.iinfo(torch.int32)
_INT16 = torch.iinfo(torch.int16)


@dataclass(frozen=True)
class RecurrentOperator(Operator):
    """A recurrent layer in one direction, from a state of zeros; values are [F, steps] and [H, steps].

    Its parameters are those of torch's module: weight_ih [gates * H, F], weight_hh [gates * H, H], and
    bias_ih and bias_hh [gates * H], both or neither.
    """

    #: Number of gates.
    gates: ClassVar[int]

    @classmethod
    @abstractmethod
    def of_call(cls, call: Call) -> Operator:
        """The operator of a call."""

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, Sequence[Value | Moved], dict[str, str]]:
        return layer_of_call(call, cls.of_call(call))

    @abstractmethod
    def sequence(self, x: Tensor, state: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """torch's layer of x [N, steps, F]: the state after each step, [N, steps, H]."""

    def float_run(self, layer: Layer) -> Tensor:
        x = layer.input.movedim(1, 2)
        parameters = [layer.parameters[role].to(x.dtype) for role in ROLES if role in layer.parameters]
        state = x.new_zeros(1, len(x), parameters[1].shape[1])
        return self.sequence(x, state, parameters).movedim(1, 2)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        scales = (layer.input_quantization.scale, layer.output_quantization.scale)
        for name, scale in zip(("ih", "hh"), scales, strict=True):
            bias = layer.parameters.get(f"bias_{name}")
            channels = quantize_channels(layer.parameters[f"weight_{name}"], bias, scale)
            tensors[f"weight_{name}"] = channels.weight.to(torch.int8)
            tensors[f"bias_{name}"] = channels.bias.to(torch.int32)
            tensors[f"scales_{name}"] = channels.scales.to(torch.float32)
        return tensors

    def products(self, layer: Layer, scale: float) -> tuple[Tensor, Product]:
        """The gates' numbers of the input in steps of `scale`, int64 [N, steps, gates * H], and the product
        with the state.
        """
        of_input = Product(layer, "ih", layer.input_quantization, scale)
        of_state = Product(layer, "hh", layer.output_quantization, scale)
        x = layer.input.movedim(1, 2)
        product = of_input(x.flatten(0, 1))
        return product.reshape(*x.shape[:2], product.shape[1]), of_state

    def requantize(self, layer: Layer, numbers: Tensor, scale: float) -> Tensor:
        """Numbers in steps of `scale`, int64, as int8 numbers of the output."""
        output = layer.output_quantization
        multiplier = quantize_multiplier(scale / output.scale)
        scaled = apply_multipliers(numbers, [multiplier]).clamp(_INT32.min, _INT32.max) + output.zero_point
        return scaled.clamp(*output.bounds).to(torch.int8)


def layer_of_call(
    call: Call, operator: Operator
) -> tuple[MovedBack, Sequence[Value | Moved], dict[str, str]]:
    """The layer of a call of :mod:`..library.recurrent_layers`, whose first result is the sequence.

    Raises:
        UnsupportedNodeError: it starts from another state than zeros, or parameters are computed.
    """
    value = call.input("x")
    if not all(_is_zero(call, call.arguments.get(name)) for name in ("state", "cell")):
        raise UnsupportedNodeError(
            "it starts from a state that forward gives it; on the device it starts from zeros",
            "leave the state out or pass torch.zeros, and train again; a state that depends on the input can "
            "be a part of each step: gru(torch.cat([x, h[:, None].expand(-1, x.shape[1], -1)], 2))",
        )
    names: dict[str, str] = {}
    for role in ROLES:
        name = call.arguments[role]
        if isinstance(name, ParameterName):
            names[role] = name
        elif name is not None:
            raise UnsupportedNodeError(f"its {role} is computed in forward", f"make the {role} a parameter")
    steps = ("movedim.int(source=1, destination=2)",)
    back = (steps, *[()] * (len(call.output_shapes) - 1))
    return MovedBack(operator, back), [Moved(value, steps)], names


def _is_zero(call: Call, state: Any) -> bool:
    """Whether a layer starts from zeros, in any spelling."""
    if isinstance(state, ParameterName | ComputedName):
        return not bool(call.tensors[state].any())
    return state is None


class Product:
    """The product of int8 numbers and quantized weights, per channel in fixed point."""

    def __init__(self, layer: Layer, name: str, quantization: Quantization, scale: float) -> None:
        """Reads the tensors of `name`, "ih" or "hh", for numbers of a quantization and results in steps of
        `scale`.
        """
        device = layer.input.device
        # float64 holds every accumulator.
        self.weight = layer.tensors[f"weight_{name}"].to(device, torch.float64)
        self.bias = layer.tensors[f"bias_{name}"].to(device, torch.float64)
        self.zero_point = quantization.zero_point
        self.multipliers = [
            quantize_multiplier(quantization.scale * of_weight / scale)
            for of_weight in layer.tensors[f"scales_{name}"].tolist()
        ]

    def __call__(self, numbers: Tensor) -> Tensor:
        """The gates of int8 numbers [N, elements], int64 [N, gates * H]."""
        sums = (numbers.to(torch.float64) - self.zero_point) @ self.weight.T + self.bias
        return apply_multipliers(sums.round().to(torch.int64), self.multipliers)


def saturated_sum(a: Tensor, b: Tensor) -> Tensor:
    """``a + b`` of int64 tensors that hold int32 numbers, saturated to int16."""
    return (a + b).clamp(_INT16.min, _INT16.max)


def _given(parameters: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {role: tensor for role, tensor in zip(ROLES, parameters, strict=True) if tensor is not None}


def _real_parameters(layer: Layer, *parameters: Tensor | None) -> dict[str, Tensor]:
    return _given(parameters)


def _tensors(layer: Layer, *parameters: Tensor | None) -> dict[str, Tensor]:
    return replace(layer, parameters=_given(parameters)).quantize()


#: Of the custom operators.
PARAMETERS = Parameters(
    ("Tensor weight_ih", "Tensor weight_hh", "Tensor? bias_ih", "Tensor? bias_hh"),
    tensors=_tensors,
    real=_real_parameters,
)


def check_parameters(name: str, gates: int, x: Tensor, parameters: Sequence[Tensor | None]) -> None:
    """Checks the real parameters of a layer of x [N, F, steps].

    Raises:
        InputError: a parameter has another dtype or shape than torch's module, or there is one bias only.
    """
    weight = parameters[1]
    hidden = weight.shape[-1] if isinstance(weight, Tensor) and weight.dim() == 2 else 0
    channels = gates * hidden
    expected = ((channels, x.shape[1] if x.dim() > 1 else 0), (channels, hidden), (channels,), (channels,))
    for role, parameter, shape in zip(ROLES, parameters, expected, strict=True):
        if parameter is None and role.startswith("bias"):
            continue
        if not isinstance(parameter, Tensor) or parameter.dtype != torch.float32 or parameter.shape != shape:
            given = (
                f"{parameter.dtype} of shape {tuple(parameter.shape)}"
                if isinstance(parameter, Tensor)
                else repr(parameter)
            )
            raise InputError(f"{name}: {role} is {given}; expected float32 of shape {shape}")
    if (parameters[2] is None) != (parameters[3] is None):
        raise InputError(f"{name}: one of bias_ih and bias_hh is None; expected both or neither")
