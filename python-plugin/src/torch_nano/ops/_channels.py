"""What convolutions and the fully connected layer share: weights per output channel, bias, clamp."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_nano._native import quantize_multiplier

from ..quant.weights import quantize_channels
from ._clamp import ClampedOperator
from ._integer import accumulation_dtype, exact_convolution, requantize
from ._library import Definition, Layer, Parameters, check_integers
from ._training import Convolution, train_channels
from .operator import Call, ParameterName, Quantization, Shape, UnsupportedNodeError


@dataclass(frozen=True)
class ChannelsOperator(ClampedOperator):
    """``y = clamp(bias + sum x * weight)``; parameters "weight" (output channels first), "bias" or none."""

    @abstractmethod
    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer without its clamp on numbers of any dtype: torch's layout of the weight."""

    @abstractmethod
    def to_device_weight(self, weight: Tensor) -> Tensor:
        """From torch's layout of the weight to nano-core's."""

    @abstractmethod
    def from_device_weight(self, weight: Tensor) -> Tensor:
        """From nano-core's layout of the weight to torch's."""

    def train_as_convolution(
        self,
        x: Tensor,
        parameters: Mapping[str, Tensor],
        convolution: Convolution,
        input_quantization: Quantization,
        output_quantization: Quantization,
    ) -> Tensor:
        """:meth:`train_run` for an input [N, in, height, width] and a weight of four dimensions."""
        clamp = (self.clamp_low, self.clamp_high)
        weight, bias = parameters["weight"], parameters.get("bias")
        return train_channels(x, weight, bias, convolution, input_quantization, output_quantization, clamp)

    def float_run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return self.activate(self.linear(inputs[0], parameters["weight"], parameters.get("bias")))

    def quantize(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Sequence[Quantization],
        input_shapes: Sequence[Shape],
        output: Quantization,
    ) -> dict[str, Tensor]:
        channels = quantize_channels(parameters["weight"], parameters.get("bias"), inputs[0].scale)
        return self.layer_tensors(*channels)

    def layer_tensors(self, weight: Tensor, bias: Tensor | None, scales: Tensor) -> dict[str, Tensor]:
        """nano-core's tensors from integers in torch's layout; no bias is zeros."""
        bias = torch.zeros(len(weight), device=weight.device) if bias is None else bias
        return {
            "weights": self.to_device_weight(weight).to(torch.int8).contiguous(),
            "bias": bias.to(torch.int32),
            "weight_scales": scales.to(torch.float32),
        }

    def integer_run(
        self,
        inputs: Sequence[Tensor],
        tensors: Mapping[str, Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization,
    ) -> Tensor:
        (x,), (quantization,) = inputs, input_quantization
        weight = self.from_device_weight(tensors["weights"]).to(x.device)
        bias = tensors["bias"].to(x.device)
        dtype = accumulation_dtype(weight, bias, quantization.zero_point)
        difference = x.to(dtype) - quantization.zero_point
        with exact_convolution(x.device):
            sums = self.linear(difference, weight.to(dtype), bias.to(dtype))
            # Whatever the algorithm, float64 is within a small fraction of the integer.
            sums = sums.round_() if dtype is torch.float64 else sums
        multipliers = [
            quantize_multiplier(quantization.scale * scale / output_quantization.scale)
            for scale in tensors["weight_scales"].tolist()
        ]
        clamp = self.clamp_attributes(output_quantization)
        bounds = (clamp["clamp_min"], clamp["clamp_max"])
        return requantize(sums, multipliers, output_quantization.zero_point, bounds)


def parameters_of(call: Call) -> tuple[Tensor, dict[str, str]]:
    """The weight and the names by role of an ATen call with `weight` and `bias`.

    Raises:
        UnsupportedNodeError: one of them is computed in forward.
    """
    names: dict[str, str] = {}
    for role in ("weight", "bias"):
        name = call.arguments[role]
        if isinstance(name, ParameterName):
            names[role] = name
        elif name is not None:
            raise UnsupportedNodeError(f"its {role} is computed in forward", f"make the {role} a parameter")
    return call.tensors[names["weight"]], names


def define_channels(operator: type[ChannelsOperator]) -> Definition:
    """The custom operator of such a layer; its parameters are weight, bias (or None) and weight_scales."""
    return Definition(operator, parameters=_PARAMETERS)


def _integer_tensors(layer: Layer) -> dict[str, Tensor]:
    assert isinstance(layer.operator, ChannelsOperator)
    weight, bias, scales = layer.parameters
    assert weight is not None and scales is not None
    check_integers(f"{layer.operator.name}: weight", weight, -127, 127)
    if bias is not None:
        check_integers(f"{layer.operator.name}: bias", bias, -(2**31), 2**31 - 1)
    return layer.operator.layer_tensors(weight, bias, scales)


def _real_parameters(layer: Layer) -> dict[str, Tensor]:
    weight, bias, scales = layer.parameters
    assert weight is not None and scales is not None
    real = {"weight": weight * scales.reshape(-1, *[1] * (weight.dim() - 1))}
    return real if bias is None else real | {"bias": bias * (scales * layer.input_quantization[0].scale)}


_PARAMETERS = Parameters(
    ("Tensor weight", "Tensor? bias", "Tensor weight_scales"),
    constant=1,
    tensors=_integer_tensors,
    real=_real_parameters,
)
