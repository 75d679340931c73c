"""Seeded random layers, one class per operator family, each with the output that TFLM gives for it.

Any layer can be made again from its family, seed and index: its repr says how.

>>> layer("fully_connected", seed=0, index=1).origin
layer("fully_connected", seed=0, index=1)
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, Self, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from . import tflm
from .model import Float32, Int8, Int32, Quantization
from .sampling import (
    activation,
    broadcast,
    channels,
    int8_input,
    output_quantization,
    quantization,
    weighted,
    weights_of,
    window,
    zero_point,
)
from .tflm import Activation, Pair

Padding = tuple[int, int, int, int]
"""(top, bottom, left, right)."""


@dataclass(frozen=True)
class Origin:
    """Where a layer comes from; its repr is the call that makes the layer again."""

    family: str
    seed: int
    index: int

    def __repr__(self) -> str:
        return f'layer("{self.family}", seed={self.seed}, index={self.index})'


@dataclass(frozen=True, eq=False, repr=False)
class Layer(ABC):
    """One operator with its data."""

    origin: Origin

    @classmethod
    @abstractmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        """A random layer of this family."""

    @abstractmethod
    def expected(self) -> Int8:
        """TFLM's output."""

    def inputs(self) -> list[Int8]:
        """The arrays that the operator runs on, in order: the fields `x`, or `a` and `b`."""
        return [getattr(self, field.name) for field in fields(self) if field.name in ("x", "a", "b")]

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "origin"}
        shown = (
            f"{name}: {value.dtype}{list(value.shape)}"
            if isinstance(value, np.ndarray)
            else f"{name}={value}"
            for name, value in values.items()
        )
        return f"{self.origin!r}  # {', '.join(shown)}"


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer):
    """x (N, H, W, C), weights (O, KH, KW, C / groups), bias (O,), weight_scales (O,), or (1,) for all."""

    x: Int8
    weights: Int8
    bias: Int32
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
        parameters = weighted(rng, (outputs, *area.kernel, inputs))
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, groups * inputs)),
            **vars(parameters),
            stride=area.stride,
            padding=area.padding,
            dilation=area.dilation,
            groups=groups,
            activation=activation(rng),
        )

    def expected(self) -> Int8:
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

    x: Int8
    weights: Int8
    bias: Int32
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
        parameters = weighted(rng, (inputs * multiplier, *area.kernel, 1))
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, inputs)),
            **vars(replace(parameters, weights=parameters.weights.transpose(3, 1, 2, 0).copy())),
            stride=area.stride,
            padding=area.padding,
            dilation=area.dilation,
            depth_multiplier=multiplier,
            activation=activation(rng),
        )

    def expected(self) -> Int8:
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


@dataclass(frozen=True, eq=False, repr=False)
class FullyConnected(Layer):
    """x (N, I), weights (O, I), bias (O,), weight_scales (O,), or (1,) for all."""

    x: Int8
    weights: Int8
    bias: Int32
    x_quantization: Quantization
    weight_scales: Float32
    y_quantization: Quantization
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        inputs = int(rng.choice([1, 2, 3, 4, 5, 7, 16, 33, 64, 130, 640]))
        parameters = weighted(rng, (channels(rng), inputs))
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 2, 3])), inputs)),
            **vars(parameters),
            activation=activation(rng),
        )

    def expected(self) -> Int8:
        return tflm.fully_connected(
            self.x,
            self.weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.y_quantization,
            activation=self.activation,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Pairwise(Layer):
    """a and b (N, H, W, C): of one shape, or with length 1 where either is broadcast."""

    a: Int8
    b: Int8
    a_quantization: Quantization
    b_quantization: Quantization
    y_quantization: Quantization
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (1, int(rng.integers(1, 6)), int(rng.integers(1, 6)), channels(rng))
        low, exact = int(rng.choice([-10, -5, -5, -5])), bool(rng.random() < 1 / 3)
        a_quantization, b_quantization = (quantization(rng, low, -3, exact=exact) for _ in range(2))
        return cls(
            origin=origin,
            a=int8_input(rng, broadcast(rng, shape)),
            b=int8_input(rng, broadcast(rng, shape)),
            a_quantization=a_quantization,
            b_quantization=b_quantization,
            y_quantization=cls.output(rng, a_quantization, b_quantization, low, exact),
            activation=activation(rng),
        )

    @classmethod
    def output(
        cls, rng: np.random.Generator, a: Quantization, b: Quantization, low: int, exact: bool
    ) -> Quantization:
        """An output quantization for inputs of these, whose scales begin at 2^low."""
        if rng.random() < 0.25:
            return output_quantization(rng, max(a.scale, b.scale), exact=exact)
        return quantization(rng, low, 0, exact=exact)

    @classmethod
    @abstractmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        """TFLM's operator."""

    def expected(self) -> Int8:
        return self.oracle()(
            self.a,
            self.b,
            self.a_quantization,
            self.b_quantization,
            self.y_quantization,
            activation=self.activation,
        )


class Add(Pairwise):
    """ADD."""

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.add


class Sub(Pairwise):
    """SUB."""

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.sub


class Mul(Pairwise):
    """MUL; most outputs fill the range."""

    @classmethod
    def output(
        cls, rng: np.random.Generator, a: Quantization, b: Quantization, low: int, exact: bool
    ) -> Quantization:
        multiplier = float(2.0 ** (rng.integers(-16, 3) if exact else rng.uniform(-16, 3)))
        scale = float(np.float32(a.scale * b.scale / multiplier))
        return Quantization(scale, quantization(rng, low, 0).zero_point)

    @classmethod
    def oracle(cls) -> tflm.PairwiseOracle:
        return tflm.mul


@dataclass(frozen=True, eq=False, repr=False)
class Matmul(Layer):
    """a (1, B, M, K) and b (1, B, K, N), or (1, B, N, K) if it is transposed; most outputs fill the range."""

    a: Int8
    b: Int8
    a_quantization: Quantization
    b_quantization: Quantization
    y_quantization: Quantization
    transpose_b: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        batch, rows, columns = (int(rng.choice([1, 1, 2, 3])), channels(rng), int(rng.integers(1, 40)))
        inner = int(rng.choice([1, 2, 3, 4, 7, 16, 33, 64, 130, 640]))
        transpose_b, exact = bool(rng.random() < 0.5), bool(rng.random() < 1 / 3)
        a_quantization, b_quantization = (quantization(rng, -10, -3, exact=exact) for _ in range(2))
        # 2^11 is about the standard deviation of a product of int8 numbers, 2^14 that of extreme ones.
        spread = 2.0**12 * inner**0.5
        low, high = ((-5, 2), (-5, 2), (-5, 2), (-12, 6))[rng.integers(4)]
        exponent = float(rng.integers(low, high) if exact else rng.uniform(low, high))
        multiplier = 2.0 ** (round(np.log2(64 / spread)) + exponent)
        scale = float(np.float32(a_quantization.scale * b_quantization.scale / multiplier))
        return cls(
            origin=origin,
            a=int8_input(rng, (1, batch, rows, inner)),
            b=int8_input(rng, (1, batch, *((columns, inner) if transpose_b else (inner, columns)))),
            a_quantization=a_quantization,
            b_quantization=b_quantization,
            y_quantization=Quantization(scale, quantization(rng, -8, 0).zero_point),
            transpose_b=transpose_b,
        )

    def expected(self) -> Int8:
        return tflm.matmul(
            self.a[0],
            self.b[0],
            self.a_quantization,
            self.b_quantization,
            self.y_quantization,
            transpose_b=self.transpose_b,
        )[None]


@dataclass(frozen=True, eq=False, repr=False)
class Lstm(Layer):
    """x (1, T, F); of the gates in torch's order weights (4, H, F), recurrent_weights (4, H, H), bias (4, H),
    and a scale each.

    The gates' sums have a standard deviation of 1/8 to 32 in real numbers: from gates that are half open to
    saturated ones and sums beyond int16.
    """

    x: Int8
    weights: Int8
    recurrent_weights: Int8
    bias: Int32
    x_quantization: Quantization
    weight_scales: Float32
    recurrent_weight_scales: Float32
    y_quantization: Quantization
    cell_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        features, units, steps = (int(rng.integers(1, most)) for most in (25, 25, 13))
        exact = bool(rng.random() < 1 / 4)
        x_quantization = quantization(rng, -10, 3, exact=exact)
        y_quantization = quantization(rng, -12, -5, exact=exact)
        weights, recurrent_weights = (weights_of(rng, (4, units, length)) for length in (features, units))
        scales = [
            # 74 is the standard deviation of uniform int8 data.
            (2.0 ** rng.uniform(-3, 5, 4) / (of.scale * 74 * 74 * length**0.5)).astype(np.float32)
            for of, length in ((x_quantization, features), (y_quantization, units))
        ]
        if exact:
            scales = [np.exp2(np.round(np.log2(scale))).astype(np.float32) for scale in scales]
        steps_of_bias = x_quantization.scale * scales[0].astype(np.float64)[:, None]
        spread = float(rng.choice([0, 1, 8]))
        return cls(
            origin=origin,
            x=int8_input(rng, (1, steps, features)),
            weights=weights,
            recurrent_weights=recurrent_weights,
            bias=np.round(spread * rng.normal(size=(4, units)) / steps_of_bias).astype(np.int32),
            x_quantization=x_quantization,
            weight_scales=scales[0],
            recurrent_weight_scales=scales[1],
            y_quantization=y_quantization,
            # Cells of up to 2^-6 to 16.
            cell_quantization=Quantization(2.0 ** int(rng.integers(-21, -10)), 0, "int16"),
        )

    def expected(self) -> Int8:
        return tflm.lstm(
            self.x,
            self.weights,
            self.recurrent_weights,
            self.bias,
            self.x_quantization,
            self.weight_scales,
            self.recurrent_weight_scales,
            self.y_quantization,
            self.cell_quantization,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Layer):
    """Inputs that are put together to x (1, H, W, C); `axis` is 0 for the height, 2 for the channels."""

    x: Int8
    quantization: Quantization
    axis: int
    sizes: tuple[int, ...]

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = [int(rng.integers(1, 6)), int(rng.integers(1, 6)), channels(rng)]
        axis = int(rng.integers(3))
        sizes = tuple(int(size) for size in rng.integers(1, 9, int(rng.integers(1, 7))))
        shape[axis] = sum(sizes)
        x = int8_input(rng, (1, *shape))
        return cls(origin=origin, x=x, quantization=quantization(rng, -8, 0), axis=axis, sizes=sizes)

    def inputs(self) -> list[Int8]:
        """The inputs, (1, H, W, C) each."""
        return np.split(self.x, np.cumsum(self.sizes)[:-1], self.axis + 1)

    def expected(self) -> Int8:
        return tflm.concat(self.inputs(), self.quantization, self.axis + 1)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Layer):
    """x (N, H, W, C); the padding is smaller than the kernel."""

    x: Int8
    quantization: Quantization
    kernel: Pair
    stride: Pair
    padding: Padding
    activation: Activation

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=False)
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, channels(rng))),
            quantization=quantization(rng, -12, 4),
            kernel=area.kernel,
            stride=area.stride,
            padding=area.padding,
            activation=activation(rng),
        )

    def expected(self) -> Int8:
        return tflm.max_pool(
            self.x,
            self.quantization,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool(MaxPool):
    """As `MaxPool`, a third of them global; `count_padding` counts the padding as zeros of the reals."""

    count_padding: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        area = window(rng, dilated=False)
        whole = rng.random() < 1 / 3
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 1, 2])), *area.size, channels(rng))),
            quantization=quantization(rng, -12, 4),
            kernel=area.size if whole else area.kernel,
            stride=(1, 1) if whole else area.stride,
            padding=(0, 0, 0, 0) if whole else area.padding,
            activation=activation(rng),
            count_padding=bool(rng.random() < 0.5),
        )

    def expected(self) -> Int8:
        return tflm.average_pool(
            self.x,
            self.quantization,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            count_padding=self.count_padding,
            activation=self.activation,
        )


@dataclass(frozen=True, eq=False, repr=False)
class ResizeBilinear(Layer):
    """x (N, H, W, C), interpolated to `size`; half of the sizes are multiples or parts of the input's."""

    x: Int8
    quantization: Quantization
    size: Pair
    align_corners: bool
    half_pixel_centers: bool

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        sides, size = ([int(side) for side in rng.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17], 2)] for _ in "xy")
        if rng.random() < 0.5:
            factors = rng.choice([1, 2, 3, 4, 8], 2).tolist()
            size = [side * factor for side, factor in zip(sides, factors, strict=True)]
            if rng.random() < 0.25:
                sides, size = size, sides
        if rng.random() < 0.25:
            sides[0] = size[0] = 1
        align_corners, half_pixel_centers = ((False, True), (True, False), (False, False))[rng.integers(3)]
        return cls(
            origin=origin,
            x=int8_input(rng, (int(rng.choice([1, 1, 2])), *sides, channels(rng))),
            quantization=quantization(rng, -12, 4),
            size=(size[0], size[1]),
            align_corners=align_corners,
            half_pixel_centers=half_pixel_centers,
        )

    def expected(self) -> Int8:
        return tflm.resize_bilinear(
            self.x,
            self.quantization,
            self.size,
            align_corners=self.align_corners,
            half_pixel_centers=self.half_pixel_centers,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Requantize(Layer):
    """All 256 values, x (1, 256)."""

    x: Int8
    x_quantization: Quantization
    y_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        x_quantization = quantization(rng, -12, 4)
        return cls(
            origin=origin,
            x=np.arange(-128, 128, dtype=np.int8).reshape(1, 256),
            x_quantization=x_quantization,
            y_quantization=output_quantization(rng, x_quantization.scale),
        )

    def expected(self) -> Int8:
        return tflm.requantize(self.x, self.x_quantization, self.y_quantization)


class RequantizeDtypes(Requantize):
    """x (1, 256) of int8, int16 or int32 to int8 or int16, at least one of them wider than int8."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        pairs = [
            ("int8", "int16"), ("int16", "int8"), ("int16", "int16"), ("int32", "int8"), ("int32", "int16")
        ]  # fmt: skip
        given, made = pairs[rng.integers(len(pairs))]
        limits, outputs = np.iinfo(given), np.iinfo(made)
        # Most outputs fill the range; of int32 no more than TFLM can shift.
        x_scale = quantization(rng, -8, 0).scale
        reach = 2.0 ** rng.uniform(-3, 3) * outputs.max / limits.max
        y_scale = float(np.float32(x_scale / min(reach, 2.0**20)))
        low, high = limits.min, limits.max
        if given == "int32":
            high = tflm.largest_bound(x_scale / y_scale)
            low = -high
        x = rng.integers(low, high, (1, 256), given, endpoint=True)
        x[0, :3] = low, high, 0
        zeros = [zero_point(rng) if dtype == "int8" else 0 for dtype in (given, made)]
        return cls(origin, x, Quantization(x_scale, zeros[0], given), Quantization(y_scale, zeros[1], made))


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Layer):
    """x (N, C), over the last dimension; the output has `tflm.SOFTMAX_OUTPUT`."""

    x: Int8
    x_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 10, 33, 100, 511])))
        low, high = ((-9, 0), (-9, 0), (-25, -9), (0, 8))[rng.integers(4)]
        return cls(origin=origin, x=int8_input(rng, shape), x_quantization=quantization(rng, low, high))

    def expected(self) -> Int8:
        return tflm.softmax(self.x, self.x_quantization)


@dataclass(frozen=True, eq=False, repr=False)
class LogSoftmax(Layer):
    """x (N, C), over the last dimension; the output has `tflm.LOG_SOFTMAX_OUTPUT`."""

    x: Int8
    x_quantization: Quantization

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        shape = (int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 10, 33, 100, 511, 2048])))
        low, high = ((-9, -3), (-9, -3), (-24, -9), (-3, 5))[rng.integers(4)]
        return cls(origin=origin, x=int8_input(rng, shape), x_quantization=quantization(rng, low, high))

    def expected(self) -> Int8:
        return tflm.log_softmax(self.x, self.x_quantization)


@dataclass(frozen=True, eq=False, repr=False)
class Unary(Layer):
    """A function of one element, on all 256 values, x (1, 256); `alpha` is leaky_relu's alone."""

    function: tflm.UnaryFunction
    x: Int8
    x_quantization: Quantization
    y_quantization: Quantization
    alpha: float

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        functions: tuple[tflm.UnaryFunction, ...] = get_args(tflm.UnaryFunction)
        function = functions[rng.integers(len(functions))]
        x_quantization = quantization(rng, -12, 1)
        return cls(
            origin=origin,
            function=function,
            x=np.arange(-128, 128, dtype=np.int8).reshape(1, 256),
            x_quantization=x_quantization,
            y_quantization=tflm.UNARY_OUTPUT.get(function) or output_quantization(rng, x_quantization.scale),
            alpha=float(np.float32(rng.choice([0.01, 0.1, 0.125, 0.25, 0.3, 0.5, 1.5]))),
        )

    def expected(self) -> Int8:
        return tflm.unary(self.function, self.x, self.x_quantization, self.y_quantization, alpha=self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class Move(Layer):
    """x (N, H, W, C), moved by one of TFLite's operators with these numbers, which leave the batch alone."""

    x: Int8
    quantization: Quantization
    operator: Literal["pad", "transpose", "strided_slice", "split", "resize_nearest"]
    numbers: tuple[tuple[int, ...], ...]

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        operators = get_args(get_type_hints(cls)["operator"])
        operator = operators[rng.integers(len(operators))]
        sides = [int(side) for side in rng.integers(1, 9, 2)]
        shape = (int(rng.choice([1, 1, 2])), *sides, channels(rng))
        if operator == "pad":
            numbers = ((0, 0), *((int(a), int(b)) for a, b in rng.integers(0, 4, (3, 2))))
        elif operator == "transpose":
            numbers = ((0, *(int(i) for i in 1 + rng.permutation(3))),)
        elif operator == "strided_slice":
            starts = [int(rng.integers(0, size)) for size in shape[1:]]
            ends = [
                int(rng.integers(start + 1, size + 1)) for start, size in zip(starts, shape[1:], strict=True)
            ]
            numbers = (0, *starts), (shape[0], *ends), (1, *(int(step) for step in rng.integers(1, 4, 3)))
        elif operator == "split":
            axis, parts = int(rng.integers(1, 4)), int(rng.integers(1, 5))
            shape = tuple(size * parts if i == axis else size for i, size in enumerate(shape))
            numbers = ((axis, parts, int(rng.integers(parts))),)
        else:
            numbers = (tuple(int(size) for size in rng.integers(1, 20, 2)),)
        return cls(origin, int8_input(rng, shape), quantization(rng, -12, 4), operator, numbers)

    def expected(self) -> Int8:
        x, of_both, numbers = self.x, self.quantization, self.numbers
        match self.operator:
            case "pad":
                return tflm.pad(x, of_both, [(before, after) for before, after in numbers])
            case "transpose":
                return tflm.transpose(x, of_both, *numbers)
            case "strided_slice":
                return tflm.strided_slice(x, of_both, *numbers)
            case "split":
                return tflm.split(x, of_both, *numbers[0])
            case "resize_nearest":
                return tflm.resize_nearest(x, of_both, (numbers[0][0], numbers[0][1]))


def _widened(x: Int8, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """int16 numbers whose high bytes are `x`."""
    return x.astype(np.int16) * 256 + rng.integers(0, 256, x.shape, np.int16)


class MoveInt16(Move):
    """`Move` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        made = super().random(origin, rng)
        of_both = Quantization(made.quantization.scale, 0, "int16")
        return replace(made, x=_widened(made.x, rng), quantization=of_both)


class ConcatInt16(Concat):
    """`Concat` of int16."""

    @classmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        made = super().random(origin, rng)
        of_all = Quantization(made.quantization.scale, 0, "int16")
        return replace(made, x=_widened(made.x, rng), quantization=of_all)


FAMILIES: dict[str, type[Layer]] = {
    "conv2d": Conv2d,
    "conv_transpose2d": ConvTranspose2d,
    "depthwise_conv2d": DepthwiseConv2d,
    "fully_connected": FullyConnected,
    "add": Add,
    "mul": Mul,
    "sub": Sub,
    "concat": Concat,
    "lstm": Lstm,
    "matmul": Matmul,
    "max_pool": MaxPool,
    "move": Move,
    "average_pool": AveragePool,
    "requantize": Requantize,
    "requantize_dtypes": RequantizeDtypes,
    "resize_bilinear": ResizeBilinear,
    "move_int16": MoveInt16,
    "concat_int16": ConcatInt16,
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
    "unary": Unary,
}


def layer(family: str, seed: int, index: int) -> Layer:
    """The layer number `index` of this seed."""
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed, index])
    return FAMILIES[family].random(Origin(family, seed, index), rng)


def layers(family: str, count: int, seed: int = 0) -> Iterator[Layer]:
    """The first `count` layers of this seed."""
    return (layer(family, seed, index) for index in range(count))
