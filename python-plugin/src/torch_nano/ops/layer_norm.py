"""Layer normalization and RMS normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_nano._native import layer_norm_parameters

from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.call import Call, Moved, MovedBack, Steps, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, Parameters, functional


@dataclass(frozen=True)
class LayerNorm(Operator):
    """``y = (x - mean) / sqrt(variance + epsilon) * weight + bias`` over the channels of each pixel.

    Without ``subtract_mean``, RMS normalization: ``y = x / sqrt(mean of x^2 + epsilon) * weight + bias``.
    Weight and bias have an element per channel, in any shape; either may be absent.

    >>> Layer(LayerNorm(epsilon=0.0), [torch.tensor([[1.0, 3.0]])]).float_run()
    (tensor([[-1.,  1.]]),)
    """

    name = "layer_norm"
    pixelwise = True

    epsilon: float = 1e-5
    subtract_mean: bool = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.layer_norm.default, torch.ops.aten.rms_norm.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        value, normalized = call.input("input"), len(call.arguments["normalized_shape"])
        if normalized > len(value.shape):
            raise UnsupportedNodeError(
                "it normalizes over the batch", "give the input a batch dimension before those normalized"
            )
        names = call.parameters("weight", "bias")
        epsilon = call.arguments["eps"]
        if epsilon is None:
            epsilon = torch.finfo(torch.float32).eps
        operator = cls(float(epsilon), subtract_mean=call.function == "layer_norm")
        if len(value.shape) == 1:
            return operator, [value], names
        steps, back = _channels_first(value.shape, normalized)
        return MovedBack(operator, (back,)), [Moved(value, steps)], names

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"subtract_mean": int(self.subtract_mean)}

    def float_run(self, layer: Layer) -> Tensor:
        x = layer.input.movedim(1, -1)
        weight, bias = (
            None if role not in layer.parameters else layer.parameters[role].flatten().to(x.dtype)
            for role in ("weight", "bias")
        )
        shape = x.shape[-1:]
        if self.subtract_mean:
            return F.layer_norm(x, shape, weight, bias, self.epsilon).movedim(-1, 1)
        y = F.rms_norm(x, shape, weight, self.epsilon)
        return (y if bias is None else y + bias).movedim(-1, 1)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        channels = layer.input_shapes[0][0]
        given = [layer.parameters.get("weight"), layer.parameters.get("bias")]
        device = next((tensor.device for tensor in given if tensor is not None), None)
        weight, bias = (
            torch.full((channels,), default, device=device)
            if tensor is None
            else tensor.detach().float().flatten()
            for tensor, default in zip(given, (1.0, 0.0), strict=True)
        )
        return {"weight": weight, "bias": bias, "epsilon": torch.tensor([self.epsilon], device=device)}

    def integer_run(self, layer: Layer) -> Tensor:
        output = layer.output_quantization
        weight, bias, epsilon = (layer.tensors[name].cpu().numpy() for name in ("weight", "bias", "epsilon"))
        scaled_epsilon, rows = layer_norm_parameters(
            weight, bias, float(epsilon[0]), layer.input_quantization.scale, (output.scale, output.zero_point)
        )
        x = layer.input.to(torch.int64).movedim(1, -1)
        count, zero_point = x.shape[-1], layer.input_quantization.zero_point
        total, squares = x.sum(-1, keepdim=True), (x * x).sum(-1, keepdim=True)
        if self.subtract_mean:
            center, variance = total, count * squares - total * total
        else:
            center = torch.full_like(total, count * zero_point)
            variance = count * (squares - 2 * zero_point * total + count * zero_point * zero_point)
        square = ((variance << 16) + scaled_epsilon).clamp(min=1)
        pairs = _leading_zeros(square) // 2
        reciprocal = _reciprocal_square_root((square << (2 * pairs - 2)) >> 30)
        normalized = (((count * x - center) << (pairs - 1)) * reciprocal) >> 32
        multiplier, addend, shift = torch.from_numpy(rows).to(x.device, torch.int64).unbind(1)
        y = (((normalized * multiplier) >> 32) + addend) >> shift
        return y.clamp(*output.bounds).to(torch.int8).movedim(-1, 1)


def _leading_zeros(x: Tensor) -> Tensor:
    """The leading zeros of int64 numbers of 1 or more as 64 bits."""
    zeros = torch.zeros_like(x)
    for bits in (32, 16, 8, 4, 2, 1):
        small = (x >> (63 - bits)) == 0
        zeros, x = zeros + small * bits, torch.where(small, x << bits, x)
    return zeros + 1


def _reciprocal_square_root(w: Tensor) -> Tensor:
    """``1 / sqrt(w)`` as Q30 for w in [1/4, 1) as Q32: three Newton steps from a line."""
    r = 2285674225 - _high(w, 1298690736)
    for _ in range(3):
        r = _high(r, ((3 << 28) - _high(w, _high(r, r))) << 2) << 1
    return r


def _high(a: Tensor, b: Tensor | int) -> Tensor:
    """The upper 32 bits of the products of uint32 numbers, which int64 cannot hold."""
    return ((a >> 16) * b + (((a & 0xFFFF) * b) >> 16)) >> 16


def _channels_first(shape: Shape, normalized: int) -> tuple[Steps, Steps]:
    """The moves that make the last `normalized` dimensions the channels, and those back."""
    sides, channels = shape[:-normalized], prod(shape[-normalized:])
    whole = f"reshape({', '.join(map(str, shape))})"
    if not sides:
        return (f"reshape({channels})",), (whole,)
    if normalized == 1 and len(sides) <= 2:
        last = len(shape)
        return (
            (f"movedim.int(source={last}, destination=1)",),
            (f"movedim.int(source=1, destination={last})",),
        )
    flat = f"reshape({prod(sides)}, {channels})"
    return (flat, "movedim.int(source=2, destination=1)"), ("movedim.int(source=1, destination=2)", whole)


def _real_parameters(layer: Layer, weight: Tensor | None, bias: Tensor | None) -> dict[str, Tensor]:
    given = {"weight": weight, "bias": bias}
    return {role: tensor for role, tensor in given.items() if tensor is not None}


def _tensors(layer: Layer, weight: Tensor | None, bias: Tensor | None) -> dict[str, Tensor]:
    operator, parameters = layer.operator, _real_parameters(layer, weight, bias)
    return operator.quantize(Layer(operator, layer.inputs, parameters))


_call = Definition(
    LayerNorm,
    parameters=Parameters(("Tensor? weight", "Tensor? bias"), tensors=_tensors, real=_real_parameters),
)


@functional
def layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    x_quantization: Quantization,
    y_quantization: Quantization,
    *,
    epsilon: float = 1e-5,
    subtract_mean: bool = True,
) -> Tensor:
    """Layer normalization of int8 numbers over dimension 1, or RMS normalization without ``subtract_mean``.

    ``y = round(((x - mean) / sqrt(variance + epsilon) * weight + bias) / s_y) + z_y`` of real numbers, in
    integers whose error nano-core's documentation bounds: little more than the rounding. The gradient is that
    of the float normalization, zero where the output saturates.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.
        weight: float32 [channels], real numbers; None for ones.
        bias: float32 [channels], real numbers; None for zeros.

    Returns:
        float32 of x's shape that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or shape, or x holds other numbers than these integers.

    >>> x = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    >>> layer_norm(x, None, None, Quantization(0.5, 3), Quantization(0.03125, 0))
    tensor([[-43., -14.,  14.,  43.]])
    """
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.shape != x.shape[1:2]):
            raise InputError(
                f"layer_norm: the {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected "
                f"float32 of shape {tuple(x.shape[1:2])}, a number per channel"
            )
    operator = LayerNorm(epsilon, subtract_mean)
    return _call(operator, [x], [x_quantization], y_quantization, [weight, bias])
