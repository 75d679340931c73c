"""Gated recurrent unit (GRU)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..arithmetic.sigmoid import sigmoid, tanh
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


@dataclass(frozen=True)
class Gru(RecurrentOperator):
    """torch's GRU in one direction: the state after each step.

    >>> parameters = {"weight_ih": torch.ones(3, 1), "weight_hh": torch.ones(3, 1)}
    >>> Layer(Gru(), [torch.tensor([[[1.0, 2.0]]])], parameters).float_run()
    (tensor([[[0.2048, 0.2813]]]),)
    """

    name = "gru"
    gates = 3

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.torch_nano.gru_layer.default]

    @classmethod
    def of_call(cls, call: Call) -> Gru:
        return cls()

    def sequence(self, x: Tensor, state: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        has_biases = len(parameters) > 2
        y: Tensor = torch.ops.aten.gru.input(x, state, parameters, has_biases, 1, 0.0, False, False, True)[0]
        return y

    def integer_run(self, layer: Layer) -> Tensor:
        states = torch.stack(self.states(layer)[0], -1)
        return self.requantize(layer, states, 2.0**AFTER)

    def states(self, layer: Layer) -> tuple[list[Tensor], list[Tensor]]:
        """The state after each step, int64 [N, H] with 15 fractional bits, and as int8 numbers."""
        of_input, of_state = self.products(layer, 2.0**BEFORE)
        half = 1 << (-AFTER - 1)
        state = of_input.new_zeros(len(of_input), of_input.shape[-1] // self.gates)
        small = torch.full_like(state, layer.output_quantization.zero_point)
        states, rounded = [], []
        for numbers in of_input.unbind(1):
            x_r, x_z, x_n = numbers.chunk(3, -1)
            h_r, h_z, h_n = of_state(small).chunk(3, -1)
            reset, update = sigmoid(saturated_sum(x_r, h_r)), sigmoid(saturated_sum(x_z, h_z))
            new = tanh(saturated_sum(x_n, (reset * h_n + half) >> -AFTER), BEFORE)
            state = new + ((update * (state - new) + half) >> -AFTER)
            small = self.requantize(layer, state, 2.0**AFTER)
            states.append(state)
            rounded.append(small)
        return states, rounded


_call = Definition(Gru, parameters=PARAMETERS)


@functional
def gru(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    x_quantization: Quantization,
    y_quantization: Quantization,
) -> Tensor:
    """GRU of int8 numbers in one direction, from a state of zeros: the state after each step.

    The gates are in torch's order: reset, update, new; the reset gate multiplies the product with the state
    and its bias. The weights are quantized per channel. nano-core's documentation bounds the error. The
    gradient is that of the float layer, zero where the output saturates.

    Args:
        x: float32 [N, F, steps], integers from -128 to 127.
        weight_ih: float32 [3 * H, F], real numbers.
        weight_hh: float32 [3 * H, H].
        bias_ih: float32 [3 * H]; None for zeros, if bias_hh is None too.
        bias_hh: float32 [3 * H].

    Returns:
        float32 [N, H, steps] that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, or x holds other numbers than these integers.

    >>> x = torch.tensor([[[1.0, 2.0]]])
    >>> gru(x, torch.ones(3, 1), torch.ones(3, 1), None, None, Quantization(1.0, 0), Quantization(0.01, 0))
    tensor([[[20., 28.]]])
    """
    parameters = [weight_ih, weight_hh, bias_ih, bias_hh]
    check_parameters("gru", Gru.gates, x, parameters)
    return _call(Gru(), [x], [x_quantization], y_quantization, parameters)
