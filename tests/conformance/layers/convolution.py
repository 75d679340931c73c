"""Convolutions."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from .. import tflm
from ..model import Float32, Int8, Int16, Int32, Int64, Quantization
from ..sampling import activation, channels, input_of, int8_input, weighted, window
from ..tflm import Activation, Pair
from .base import Layer, Origin, Padding


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer):
    """x (N, H, W, C), weights (O, KH, KW, C / groups), bias (O,), weight_scales (O,), or (1,) for all."""

    dtype: ClassVar[str] = "int8"

    x: Int8 | Int16
    weights: Int8
    bias: Int32 | Int64
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=True)
        groups = int(rng.choice([1, 1, 1, 2, 3, 4]))
        inputs = channels(rng) if groups == 1 else int(rng.choice([1, 2, 3, 5]))
        outputs = channels(rng) if groups == 1 else groups * int(rng.choice([1, 2, 3, 5]))
        parameters = weighted(rng, (outputs, *area.kernel, inputs), cls.dtype)
        return cls(
            origin=origin,
            x=input_of(cls.dtype, rng, (int(rng.choice([1, 1, 1, 2])), *area.size, groups * inputs)),
            **vars(parameters),
            stride=area.stride,
            padding=area.padding,
            dilation=area.dilation,
            groups=groups,
            activation=activation(rng),
        )

    def expected(self) -> Int8 | Int16:
        return tflm.conv2d(
            self.x,
            self.weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.y_quantization,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            activation=self.activation,
        )


class Conv2dInt16(Conv2d):
    """`Conv2d` of int16, with an int64 bias."""

    dtype = "int16"


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose2d(Layer):
    """x (N, H, W, C), weights (O, KH, KW, C), bias (O,), weight_scales (O,), or (1,) for all."""

    x: Int8
    weights: Int8
    bias: Int32
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization
    stride: Pair
    padding: Padding
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=False)
        inputs = channels(rng)
        parameters = weighted(rng, (channels(rng), *area.kernel, inputs))
        # Of what the window pads a convolution by, no more than leaves an output.
        padding: list[int] = []
        for axis in range(2):
            room = (area.size[axis] - 1) * area.stride[axis] + area.kernel[axis] - 1
            before = min(area.padding[2 * axis], room)
            padding += [before, min(area.padding[2 * axis + 1], room - before)]
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, inputs)),
            **vars(parameters),
            stride=area.stride,
            padding=(padding[0], padding[1], padding[2], padding[3]),
            activation=activation(rng),
        )

    def expected(self) -> Int8:
        return tflm.conv_transpose2d(
            self.x,
            self.weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.y_quantization,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )


@dataclass(frozen=True, eq=False, repr=False)
class DepthwiseConv2d(Layer):
    """x (N, H, W, C), weights (1, KH, KW, C * m), bias (C * m,), weight_scales (C * m,), or (1,) for all."""

    dtype: ClassVar[str] = "int8"

    x: Int8 | Int16
    weights: Int8
    bias: Int32 | Int64
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization
    stride: Pair
    padding: Padding
    dilation: Pair
    depth_multiplier: int
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=True)
        multiplier = int(rng.choice([1, 1, 1, 2, 3, 4]))
        inputs = channels(rng)
        parameters = weighted(rng, (inputs * multiplier, *area.kernel, 1), cls.dtype)
        return cls(
            origin=origin,
            x=input_of(cls.dtype, rng, (int(rng.choice([1, 1, 1, 2])), *area.size, inputs)),
            **vars(replace(parameters, weights=parameters.weights.transpose(3, 1, 2, 0).copy())),
            stride=area.stride,
            padding=area.padding,
            dilation=area.dilation,
            depth_multiplier=multiplier,
            activation=activation(rng),
        )

    def expected(self) -> Int8 | Int16:
        return tflm.depthwise_conv2d(
            self.x,
            self.weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.y_quantization,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            activation=self.activation,
        )


class DepthwiseConv2dInt16(DepthwiseConv2d):
    """`DepthwiseConv2d` of int16, with an int64 bias."""

    dtype = "int16"
