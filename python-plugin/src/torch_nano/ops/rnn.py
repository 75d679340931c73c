"""Elman's recurrent layer, with tanh or ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..arithmetic.sigmoid import tanh
from ..ir.call import Call
from ..ir.layer import Layer
from ..library.definition import Definition, functional
from ._recurrent import (
    AFTER,
    BEFORE,
    PARAMETERS,
    RecurrentOperator,
    check_parameters,
    saturated_sum,
)

#: Steps of the sum for ReLU in one step of the output.
_RELU_STEPS = 256
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Rnn(RecurrentOperator):
    """torch's RNN in one direction: the state after each step.

    >>> parameters = {"weight_ih": torch.ones(1, 1), "weight_hh": torch.ones(1, 1)}
    >>> Layer(Rnn(relu=True), [torch.tensor([[[1.0, 2.0]]])], parameters).float_run()
    (tensor([[[1., 3.]]]),)
    """

    name = "rnn"
    gates = 1

    #: Whether the activation is ReLU instead of tanh.
    relu: bool = False

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.torch_nano.rnn_layer.default]

    @classmethod
    def of_call(cls, call: Call) -> Rnn:
        return cls(relu=bool(call.arguments["relu"]))

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"relu": int(self.relu)}

    def sequence(self, x: Tensor, state: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        function = torch.ops.aten.rnn_relu.input if self.relu else torch.ops.aten.rnn_tanh.input
        y: Tensor = function(x, state, parameters, len(parameters) > 2, 1, 0.0, False, False, True)[0]
        return y

    def integer_run(self, layer: Layer) -> Tensor:
        step, result = 2.0**BEFORE, 2.0**AFTER
        if self.relu:
            step = result = layer.output_quantization.scale / _RELU_STEPS
        of_input, of_state = self.products(layer, step)
        state = of_input.new_full((len(of_input), of_input.shape[-1]), layer.output_quantization.zero_point)
        states = []
        for numbers in of_input.unbind(1):
            others = of_state(state)
            total = (
                (numbers + others).clamp(0, _INT32_MAX)
                if self.relu
                else tanh(saturated_sum(numbers, others), BEFORE)
            )
            state = self.requantize(layer, total, result)
            states.append(state)
        return torch.stack(states, -1)


_call = Definition(Rnn, parameters=PARAMETERS)


@functional
def rnn(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    relu: bool = False,
) -> Tensor:
    """Elman's recurrent layer of int8 numbers in one direction, from a state of zeros: the state after each
    step.

    The activation is tanh, or ReLU with ``relu``. The weights are quantized per channel. nano-core's
    documentation bounds the error. The gradient is that of the float layer, zero where the output saturates.

    Args:
        x: float32 [N, F, steps], integers from -128 to 127.
        weight_ih: float32 [H, F], real numbers.
        weight_hh: float32 [H, H].
        bias_ih: float32 [H]; None for zeros, if bias_hh is None too.
        bias_hh: float32 [H].

    Returns:
        float32 [N, H, steps] that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, or x holds other numbers than these integers.

    >>> x, one = torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1)
    >>> rnn(x, one, one, None, None, Quantization(1.0, 0), Quantization(0.1, 0), relu=True)
    tensor([[[10., 30.]]])
    """
    parameters = [weight_ih, weight_hh, bias_ih, bias_hh]
    check_parameters("rnn", Rnn.gates, x, parameters)
    return _call(Rnn(relu), [x], [x_quantization], y_quantization, parameters)
