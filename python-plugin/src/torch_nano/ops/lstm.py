"""Long short-term memory (LSTM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..arithmetic.fixed_point import Multiplier, apply_multipliers
from ..arithmetic.quantization import Quantization
from ..arithmetic.sigmoid import sigmoid, tanh
from ..arithmetic.weights import quantize_channels
from ..errors import InputError
from ..ir.call import Call, Moved, MovedBack
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import check_integers, functional
from ._recurrent import ROLES, check_parameters, layer_of_call

#: Input, forget, cell and output gate, in torch's order.
_GATES = 4
#: The exponents of the steps of the gates before their function, and after it.
_BEFORE, _AFTER = -12, -15
_INT16 = (-32768, 32767)


@dataclass(frozen=True)
class Lstm(Operator):
    """One layer of ``torch.nn.LSTM`` in one direction, from states of zero.

    x is [N, features, steps]. The outputs are the hidden states of all steps, [N, units, steps], and the last
    cell state, [N, units]. Parameters, as in torch: weight_ih [4 * units, features], weight_hh [4 * units,
    units], bias_ih and bias_hh [4 * units], of the input, forget, cell and output gates; without the last
    two the biases are 0.

    >>> parameters = {"weight_ih": torch.ones(4, 1), "weight_hh": torch.ones(4, 1)}
    >>> Layer(Lstm(), [torch.tensor([[[1.0, 2.0]]])], parameters).float_run()
    (tensor([[[0.3696, 0.8112]]]), tensor([[1.4078]]))
    """

    name = "lstm"

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.torch_nano.lstm_layer.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, Sequence[Value | Moved], dict[str, str]]:
        return layer_of_call(call, cls())

    def float_run(self, layer: Layer) -> tuple[Tensor, Tensor]:
        x = layer.input.mT
        weights, biases = _of_torch(layer, x.dtype)
        state = x.new_zeros(1, len(x), len(weights[0]) // _GATES)
        parameters = [*weights, *biases]
        has_biases, train, bidirectional, batch_first = bool(biases), False, False, True
        y, _, cell = torch.lstm(
            x, (state, state), parameters, has_biases, 1, 0.0, train, bidirectional, batch_first
        )
        return y.mT, cell[0]

    def observed(self, layer: Layer, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The hidden states, and the cell states of all steps."""
        hidden, _ = outputs
        (weight_ih, weight_hh), biases = _of_torch(layer, layer.input.dtype)
        sums = torch.einsum("nft,gf->ngt", layer.input, weight_ih)
        for bias in biases:
            sums = sums + bias[:, None]
        before = torch.cat([torch.zeros_like(hidden[..., :1]), hidden[..., :-1]], 2)
        gates = (sums + torch.einsum("nht,gh->ngt", before, weight_hh)).chunk(_GATES, 1)
        forget, added = gates[1].sigmoid(), gates[0].sigmoid() * gates[2].tanh()
        cell, cells = torch.zeros_like(added[..., 0]), []
        for step in range(added.shape[2]):
            cell = forget[..., step] * cell + added[..., step]
            cells.append(cell)
        return hidden, torch.stack(cells, 2)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        weights, biases = _of_torch(layer, torch.float32)
        weight_ih, weight_hh = (weight.detach().reshape(_GATES, -1) for weight in weights)
        units = len(weights[0]) // _GATES
        bias = weight_ih.new_zeros(_GATES, units)
        for one in biases:
            bias = bias + one.detach().reshape(_GATES, units)
        scale = layer.input_quantization.scale
        # One scale per gate, from its largest weight and bias.
        of_input = quantize_channels(weight_ih, bias.abs().amax(1), scale)
        recurrent = quantize_channels(weight_hh, None, layer.output_quantizations[0].scale)
        steps = of_input.scales.double()[:, None] * scale
        return {
            "weights": of_input.weight.reshape(_GATES, units, -1),
            "recurrent_weights": recurrent.weight.reshape(_GATES, units, units),
            "bias": (bias.double() / steps).round().to(torch.int32),
            "weight_scales": of_input.scales,
            "recurrent_weight_scales": recurrent.scales,
        }

    def integer_run(self, layer: Layer) -> tuple[Tensor, Tensor]:
        of_hidden, of_cell = layer.output_quantizations
        tensors, (samples, _, steps) = layer.tensors, layer.input.shape
        bias = tensors["bias"]
        units = bias.shape[1]
        pixels = layer.input.mT.flatten(0, 1)
        sums = _sums(pixels, tensors["weights"], tensors["weight_scales"], layer.input_quantization, bias)
        of_input = sums.reshape(samples, steps, sums.shape[1])
        exponent = round(math.log2(of_cell.scale))
        kept, added, shown = (
            [quantize_multiplier(real)]
            for real in (2.0**_AFTER, 2.0 ** (2 * _AFTER - exponent), 2.0 ** (2 * _AFTER) / of_hidden.scale)
        )
        cell = torch.zeros(samples, units, dtype=torch.int64, device=layer.input.device)
        hidden = torch.full_like(cell, of_hidden.zero_point)
        sequence = []
        for step in range(steps):
            recurrent = _sums(
                hidden, tensors["recurrent_weights"], tensors["recurrent_weight_scales"], of_hidden
            )
            gates = (of_input[:, step] + recurrent).clamp(*_INT16)
            i, f, g, o = gates.chunk(_GATES, 1)
            new = apply_multipliers(sigmoid(i) * tanh(g, _BEFORE), added).clamp(*_INT16)
            cell = (apply_multipliers(sigmoid(f) * cell, kept) + new).clamp(*_INT16)
            products = apply_multipliers(tanh(cell, exponent) * sigmoid(o), shown)
            hidden = (products + of_hidden.zero_point).clamp(*of_hidden.bounds)
            sequence.append(hidden)
        return torch.stack(sequence, 2).to(torch.int8), cell.to(torch.int16)


@functional
def lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    x_quantization: Quantization,
    y_quantization: Quantization,
    cell_quantization: Quantization,
) -> tuple[Tensor, Tensor]:
    """LSTM of int8 numbers in one direction, from states of zero: the hidden states, and the last cell state.

    TFLM's UNIDIRECTIONAL_SEQUENCE_LSTM. The gates are in torch's order: input, forget, cell, output; their
    weights are quantized per gate. The gradient is that of the float layer, zero where an output saturates.

    Args:
        x: float32 [N, features, steps], integers from -128 to 127.
        weight_ih: float32 [4 * units, features], real numbers.
        weight_hh: float32 [4 * units, units].
        bias_ih: float32 [4 * units]; None for zeros, if bias_hh is None too.
        bias_hh: float32 [4 * units].
        cell_quantization: int16, its scale a power of two from 2^-43 to 2^2, as
            :meth:`.Quantization.to_power_of_two` makes it.

    Returns:
        float32 [N, units, steps] and [N, units] that hold int8 and int16 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, x holds other numbers than these integers, or a
            quantization is not as described.

    >>> x, ones, cell = torch.tensor([[[1.0, 2.0]]]), torch.ones(4, 1), Quantization(2.0**-12, 0, "int16")
    >>> lstm(x, ones, ones, None, None, Quantization(1.0, 0), Quantization(0.01, 0), cell)
    (tensor([[[37., 81.]]]), tensor([[5767.]]))
    """
    if x.dim() != 3:
        raise InputError(f"lstm: x has shape {tuple(x.shape)}; expected [N, features, steps]")
    check_integers("lstm: x", x, *x_quantization.bounds)
    given = (weight_ih, weight_hh, bias_ih, bias_hh)
    check_parameters("lstm", _GATES, x, given)
    exponent = math.log2(cell_quantization.scale)
    dtypes = [one.dtype for one in (x_quantization, y_quantization, cell_quantization)]
    if dtypes != ["int8", "int8", "int16"] or exponent not in range(-43, 3):
        raise InputError(
            f"lstm: the quantizations are {x_quantization}, {y_quantization} and {cell_quantization}; "
            "expected int8, int8, and int16 whose scale is a power of two from 2^-43 to 2^2"
        )
    y, cell = Layer(
        Lstm(),
        [x - x_quantization.zero_point],
        {role: tensor for role, tensor in zip(ROLES, given, strict=True) if tensor is not None},
        input_quantizations=[x_quantization],
        output_quantizations=[y_quantization, cell_quantization],
    ).train_run()
    return y + y_quantization.zero_point, cell


def _of_torch(layer: Layer, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and the biases, of the input and of the hidden state."""
    given = {role: tensor.to(dtype) for role, tensor in layer.parameters.items()}
    biases = [given[role] for role in ("bias_ih", "bias_hh") if role in given]
    return [given["weight_ih"], given["weight_hh"]], biases


def _sums(
    x: Tensor, weights: Tensor, scales: Tensor, quantization: Quantization, bias: Tensor | None = None
) -> Tensor:
    """The sums of all gates in steps of 2^-12, int16 numbers in int64 [pixels, 4 * units].

    Args:
        x: integers [pixels, features].
        weights: int8 [4, units, features].
        scales: float32 [4], of the weights.
        quantization: of x.
        bias: int32 [4, units].
    """
    # Sums of integers below 2^53 are exact in any order.
    sums = (x.double() - quantization.zero_point) @ weights.flatten(0, 1).double().T
    if bias is not None:
        sums = sums + bias.flatten().double()
    multipliers = [_multiplier(quantization.scale, scale) for scale in scales.tolist()]
    each = [multiplier for multiplier in multipliers for _ in range(weights.shape[1])]
    return apply_multipliers(sums.to(torch.int64), each).clamp(*_INT16)


def _multiplier(input_scale: float, weight_scale: float) -> Multiplier:
    return quantize_multiplier(input_scale * weight_scale / 2.0**_BEFORE)
