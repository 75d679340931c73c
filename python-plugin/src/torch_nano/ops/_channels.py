"""Base class of convolutions and the fully connected layer: weights per output channel, bias, clamp."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic.fixed_point import accumulation_dtype, exact_convolution, requantize_channels
from ..arithmetic.quantization import Quantization
from ..arithmetic.weights import QuantizedChannels, quantize_channels
from ..ir.layer import Layer
from ..library.definition import Definition, Parameters, check_integers
from ..library.train_run import Convolution, train_channels
from ._clamp import ClampedOperator


@dataclass(frozen=True)
class ChannelsOperator(ClampedOperator):
    """``y = clamp(bias + sum x * weight)``; parameters "weight" and "bias" if any.

    The weight has its output channels first, in torch and on the device, unless :meth:`outputs_first` says
    otherwise.
    """

    fast_in_torch = True

    @abstractmethod
    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer without its clamp, for any dtype; the weight is in torch's layout."""

    def outputs_first(self, weight: Tensor) -> Tensor:
        """From torch's layout of the weight to that of a convolution, output channels first."""
        return weight

    def from_outputs_first(self, weight: Tensor) -> Tensor:
        """Undoes :meth:`outputs_first`."""
        return weight

    def by_channels(self, weight: Tensor) -> Tensor:
        """From torch's layout of the weight to [outputs, inputs that each output reads, ...], in the order of
        the values' channels.
        """
        return self.outputs_first(weight)

    def scale_outputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        """The weight, in torch's layout, times a factor for each output channel."""
        by_output = self.outputs_first(weight)
        return self.from_outputs_first(by_output * factors.reshape(-1, *[1] * (by_output.dim() - 1)))

    @abstractmethod
    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        """The weight, in torch's layout, with those of each input channel times a factor [channels]."""

    @abstractmethod
    def to_device_weight(self, weight: Tensor) -> Tensor:
        """From torch's layout of the weight to nano-core's."""

    @abstractmethod
    def from_device_weight(self, weight: Tensor) -> Tensor:
        """From nano-core's layout of the weight to torch's."""

    def train_as_convolution(
        self,
        layer: Layer,
        x: Tensor,
        weight: Tensor,
        convolution: Convolution,
    ) -> Tensor:
        """:meth:`train_run` with its input as [N, in, height, width] and its weight in four dimensions."""
        quantizations = (layer.input_quantization, layer.output_quantization)
        clamp = (self.clamp_low, self.clamp_high)
        return train_channels(x, weight, layer.parameters.get("bias"), convolution, *quantizations, clamp)

    def float_run(self, layer: Layer) -> Tensor:
        weight, bias = layer.parameters["weight"], layer.parameters.get("bias")
        return self.activate(self.linear(layer.input, weight, bias))

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        weight, bias = layer.parameters["weight"], layer.parameters.get("bias")
        x = layer.input_quantization
        by_output = self.outputs_first(weight)
        channels = quantize_channels(by_output, bias, x.scale, input_bits=x.bits)
        if layer.means:
            bias = self._corrected_bias(layer, channels)
            channels = quantize_channels(by_output, bias, x.scale, input_bits=x.bits)
        return self.layer_tensors(self.from_outputs_first(channels.weight), channels.bias, channels.scales, x)

    def _corrected_bias(self, layer: Layer, channels: QuantizedChannels) -> Tensor:
        """The bias minus the mean error that the rounded weights cause (bias correction).

        The layer is linear, so the mean error is its output for the mean input and the weights' rounding
        errors, averaged over the pixels.
        """
        weight, bias = layer.parameters["weight"], layer.parameters.get("bias")
        (mean,) = layer.means
        rounded = self.scale_outputs(self.from_outputs_first(channels.weight.float()), channels.scales)
        error = self.linear(mean[None], rounded - weight, None)[0]
        error = error.reshape(len(error), -1).mean(1)
        return -error if bias is None else bias - error

    def layer_tensors(
        self, weight: Tensor, bias: Tensor | None, scales: Tensor, x: Quantization
    ) -> dict[str, Tensor]:
        """nano-core's tensors from integers in torch's layout; a missing bias becomes zeros.

        The bias is int32, that of a layer of int16 int64.
        """
        bias = torch.zeros(len(scales), device=weight.device) if bias is None else bias
        return {
            "weights": self.to_device_weight(weight).to(torch.int8).contiguous(),
            "bias": bias.to(_bias_dtype(x)),
            "weight_scales": scales.to(torch.float32),
        }

    def integer_run(self, layer: Layer) -> Tensor:
        x, quantization = layer.input, layer.input_quantization
        weight, bias = (layer.tensors[name].to(x.device) for name in ("weights", "bias"))
        dtype = accumulation_dtype(weight, bias, quantization.levels)
        weight = self.from_device_weight(weight)
        difference = x.to(dtype) - quantization.zero_point
        with exact_convolution(x.device):
            sums = self.linear(difference, weight.to(dtype), bias.to(dtype))
        output = layer.output_quantization
        return requantize_channels(
            sums,
            [quantization.scale * scale / output.scale for scale in layer.tensors["weight_scales"].tolist()],
            output.zero_point,
            self.integer_bounds(layer),
            output.torch_dtype,
            wide=quantization.bits > 8,
        )


def _bias_dtype(x: Quantization) -> torch.dtype:
    return torch.int32 if x.bits == 8 else torch.int64


def define_channels(operator: type[ChannelsOperator]) -> Definition:
    """The custom operator of such a layer; its parameters are weight, bias (or None) and weight_scales."""
    return Definition(operator, parameters=_PARAMETERS)


def _integer_tensors(layer: Layer, weight: Tensor, bias: Tensor | None, scales: Tensor) -> dict[str, Tensor]:
    assert isinstance(layer.operator, ChannelsOperator)
    check_integers(f"{layer.operator.name}: weight", weight, -127, 127)
    if bias is not None:
        bounds = torch.iinfo(_bias_dtype(layer.input_quantization))
        check_integers(f"{layer.operator.name}: bias", bias, bounds.min, bounds.max)
    return layer.operator.layer_tensors(weight, bias, scales, layer.input_quantization)


def _real_parameters(layer: Layer, weight: Tensor, bias: Tensor | None, scales: Tensor) -> dict[str, Tensor]:
    assert isinstance(layer.operator, ChannelsOperator)
    real = {"weight": layer.operator.scale_outputs(weight, scales)}
    return real if bias is None else real | {"bias": bias * (scales * layer.input_quantization.scale)}


_PARAMETERS = Parameters(
    ("Tensor weight", "Tensor? bias", "Tensor weight_scales"),
    constant=1,
    tensors=_integer_tensors,
    real=_real_parameters,
)
