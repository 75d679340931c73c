"""Random layers, one entry per operator: what every test of this folder runs over."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch_nano.arithmetic.layout import Shape
from torch_nano.arithmetic.quantization import INDICES, Quantization
from torch_nano.arithmetic.tensors import random_integers
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Fixed, Rule, SameAs, Shared, Signature
from torch_nano.ops import OPERATORS
from torch_nano.ops._channels import ChannelsOperator
from torch_nano.ops._pairwise import PairwiseOperator
from torch_nano.ops._recurrent import ROLES, RecurrentOperator
from torch_nano.ops._steps import element_numbers
from torch_nano.ops._window import Padding, Pair
from torch_nano.ops.activation import Activation
from torch_nano.ops.add import Add
from torch_nano.ops.argmax import Argmax
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.concat import Concat
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.conv_transpose2d import ConvTranspose2d
from torch_nano.ops.depthwise_conv2d import DepthwiseConv2d
from torch_nano.ops.embedding import Embedding
from torch_nano.ops.expression import Expression
from torch_nano.ops.fully_connected import FullyConnected
from torch_nano.ops.gru import Gru
from torch_nano.ops.history import History
from torch_nano.ops.layer_norm import LayerNorm
from torch_nano.ops.log_softmax import LogSoftmax
from torch_nano.ops.lstm import Lstm
from torch_nano.ops.masked_softmax import MaskedSoftmax
from torch_nano.ops.matmul import Matmul
from torch_nano.ops.max_pool2d import MaxPool2d
from torch_nano.ops.move import Move
from torch_nano.ops.mul import Mul
from torch_nano.ops.prelu import Prelu
from torch_nano.ops.requantize import Requantize
from torch_nano.ops.resize_bilinear import ResizeBilinear
from torch_nano.ops.rnn import Rnn
from torch_nano.ops.softmax import Softmax
from torch_nano.ops.sub import Sub
from torch_nano.ops.table import UNARY_FUNCTIONS, Table


@dataclass(frozen=True)
class Case(Layer):
    """A quantized layer: integer inputs, parameters in real numbers, and nano-core's tensors."""

    def output(self) -> Tensor:
        """The output in plain torch, of a layer with a single output."""
        (y,) = self.integer_run()
        return y

    def differences(self) -> list[Tensor]:
        """The inputs without their zero point, float32."""
        return [x.float() - q.zero_point for x, q in zip(self.inputs, self.input_quantizations, strict=True)]

    def real_output(self) -> Tensor:
        """The output in real numbers, of a layer with a single output."""
        (y,) = self.real_outputs()
        return y

    def real_outputs(self) -> tuple[Tensor, ...]:
        """The outputs in real numbers, of the parameters before they are quantized."""
        return replace(self, inputs=replace(self, inputs=self.differences()).real_inputs()).float_run()

    def integer_parameters(self) -> list[Tensor | None]:
        """The parameters as the custom operator takes them: weight, bias, weight_scales."""
        if isinstance(self.operator, LayerNorm):
            return [self.parameters.get(role) for role in ("weight", "bias")]
        if isinstance(self.operator, Embedding):
            return [self.tensors["table"].float()]
        if isinstance(self.operator, Prelu):
            return [self.tensors["alpha"].float(), self.tensors["alpha_scale"]]
        if isinstance(self.operator, RecurrentOperator):
            return [self.parameters.get(role) for role in ROLES]
        if not isinstance(self.operator, ChannelsOperator):
            return []
        weight = self.operator.from_device_weight(self.tensors["weights"])
        return [weight.float(), self.tensors["bias"].float(), self.tensors["weight_scales"]]


Maker = Callable[[np.random.Generator], Layer]


def _window(rng: np.random.Generator, most: int) -> tuple[Pair, Pair, Padding]:
    """Kernel, stride and padding; `most` is the most padding of a kernel of 5."""
    kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    top, bottom = (int(rng.integers(0, min(most, kernel[0] - 1) + 1)) for _ in range(2))
    left, right = (int(rng.integers(0, min(most, kernel[1] - 1) + 1)) for _ in range(2))
    return kernel, stride, (top, bottom, left, right)


def _clamp(rng: np.random.Generator) -> dict[str, float | None]:
    low, high = [(None, None), (None, None), (0.0, None), (0.0, 6.0), (-1.0, 1.0)][rng.integers(5)]
    return {"clamp_low": low, "clamp_high": high}


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def _shape(rng: np.random.Generator, channels: int) -> Shape:
    """A vector, a series or an image."""
    sides = rng.integers(1, 7, int(rng.integers(0, 3)))
    return (channels, *(int(side) for side in sides))


def _conv2d(rng: np.random.Generator) -> Layer:
    groups, inputs, outputs = int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 6))
    kernel, stride, padding = _window(rng, 4)
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    parameters = {
        "weight": _normal(rng, groups * outputs, inputs, *kernel),
        "bias": _normal(rng, groups * outputs),
    }
    shape: Shape = (groups * inputs, int(rng.integers(7, 12)), int(rng.integers(7, 12)))
    if rng.random() < 0.3:
        # One spatial dimension.
        kernel, stride, padding, dilation = (
            (1, kernel[1]),
            (1, stride[1]),
            (0, 0, *padding[2:]),
            (1, dilation[1]),
        )
        parameters["weight"] = parameters["weight"][:, :, 0].contiguous()
        shape = (shape[0], shape[2])
    if rng.random() < 0.2:
        del parameters["bias"]
    return Layer(
        Conv2d(kernel, stride, padding, dilation, groups, **_clamp(rng)),
        parameters=parameters,
        shapes=[shape],
    )


def _conv_transpose2d(rng: np.random.Generator) -> Layer:
    groups, inputs, outputs = int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 6))
    kernel, stride, dilation = (
        (int(rng.integers(1, most)), int(rng.integers(1, most))) for most in (5, 4, 4)
    )
    size = (int(rng.integers(1, 7)), int(rng.integers(1, 9)))
    padding: list[int] = []
    for axis in range(2):
        full = (size[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        before = int(rng.integers(0, min(full, 5)))
        least = 1 - max(stride[axis], dilation[axis])
        padding += [before, int(rng.integers(least, min(full - before, 5)))]
    parameters = {
        "weight": _normal(rng, groups * inputs, outputs, *kernel),
        "bias": _normal(rng, groups * outputs),
    }
    shape: Shape = (groups * inputs, *size)
    if rng.random() < 0.3:
        # One spatial dimension.
        kernel, stride, padding, dilation = (
            (1, kernel[1]),
            (1, stride[1]),
            [0, 0, *padding[2:]],
            (1, dilation[1]),
        )
        parameters["weight"] = parameters["weight"][:, :, 0].contiguous()
        shape = (shape[0], size[1])
    if rng.random() < 0.2:
        del parameters["bias"]
    sides = (padding[0], padding[1], padding[2], padding[3])
    operator = ConvTranspose2d(kernel, stride, sides, dilation, groups, **_clamp(rng))
    return Layer(operator, parameters=parameters, shapes=[shape])


def _depthwise_conv2d(rng: np.random.Generator) -> Layer:
    channels = int(rng.integers(1, 10))
    kernel, stride, padding = _window(rng, 4)
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    parameters = {"weight": _normal(rng, channels, 1, *kernel), "bias": _normal(rng, channels)}
    shape = (channels, int(rng.integers(7, 12)), int(rng.integers(7, 12)))
    return Layer(
        DepthwiseConv2d(kernel, stride, padding, dilation, **_clamp(rng)),
        parameters=parameters,
        shapes=[shape],
    )


def _fully_connected(rng: np.random.Generator) -> Layer:
    shape = _shape(rng, int(rng.integers(1, 30)))
    outputs = int(rng.integers(1, 20))
    parameters = {"weight": _normal(rng, outputs, math.prod(shape)), "bias": _normal(rng, outputs)}
    return Layer(
        FullyConnected(shape if len(shape) > 1 else None, **_clamp(rng)),
        parameters=parameters,
        shapes=[shape],
    )


def _pairwise(operator: type[PairwiseOperator]) -> Maker:
    def make(rng: np.random.Generator) -> Layer:
        shapes = [_shape(rng, int(rng.integers(1, 30)))] * 2
        if rng.random() < 0.4:
            # Broadcast along some dimensions, of either input.
            shapes = [tuple(int(rng.choice([1, length])) for length in shape) for shape in shapes]
        return Layer(operator(**_clamp(rng)), shapes=shapes)

    return make


def _concat(rng: np.random.Generator) -> Layer:
    shape = _shape(rng, int(rng.integers(1, 10)))
    dimension = int(rng.integers(len(shape)))
    sizes = (int(size) for size in rng.integers(1, 9, int(rng.integers(1, 7))))
    shapes = [(*shape[:dimension], size, *shape[dimension + 1 :]) for size in sizes]
    return Layer(Concat(dimension), shapes=shapes)


def _requantize(rng: np.random.Generator) -> Layer:
    return Layer(Requantize(**_clamp(rng)), shapes=[_shape(rng, int(rng.integers(1, 30)))])


def _max_pool2d(rng: np.random.Generator) -> Layer:
    kernel, stride, padding = _window(rng, 2)
    shape = (int(rng.integers(1, 6)), int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    return Layer(MaxPool2d(kernel, stride, padding), shapes=[shape])


def _average_pool2d(rng: np.random.Generator) -> Layer:
    kernel, stride, padding = _window(rng, 2)
    shape = (int(rng.integers(1, 6)), int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    return Layer(
        AveragePool2d(kernel, stride, padding, count_include_pad=bool(rng.random() < 0.5)), shapes=[shape]
    )


def _resize_bilinear(rng: np.random.Generator) -> Layer:
    *sides, height, width = (int(side) for side in rng.integers(1, 20, 4))
    shape = (int(rng.integers(1, 20)), *sides)
    if rng.random() < 0.3:
        shape, height = (shape[0], sides[1]), 1
    operator = ResizeBilinear((height, width), align_corners=bool(rng.random() < 0.5))
    return Layer(operator, shapes=[shape])


def _history(rng: np.random.Generator) -> Layer:
    channels = int(rng.integers(1, 9))
    start = tuple(float(number) for number in rng.normal(size=channels))
    return Layer(History(int(rng.integers(1, 6)), start), shapes=[_shape(rng, channels)])


def _matmul(rng: np.random.Generator) -> Layer:
    rows, inner, columns = (int(rng.integers(1, most)) for most in (20, 40, 40))
    batch = () if rng.random() < 0.5 else (int(rng.integers(1, 4)),)
    transpose_b = bool(rng.random() < 0.5)
    b = (inner, *batch, columns) if transpose_b else (columns, *batch, inner)
    return Layer(Matmul(transpose_b), shapes=[(inner, *batch, rows), b])


def _recurrent(rng: np.random.Generator, operator: Operator, gates: int) -> Layer:
    features, units, steps = (int(rng.integers(1, most)) for most in (20, 20, 10))
    channels = gates * units
    parameters = {
        "weight_ih": _normal(rng, channels, features) / features**0.5,
        "weight_hh": _normal(rng, channels, units) / units**0.5,
    }
    if rng.random() < 0.8:
        parameters |= {"bias_ih": _normal(rng, channels), "bias_hh": _normal(rng, channels)}
    return Layer(operator, parameters=parameters, shapes=[(features, steps)])


def _lstm(rng: np.random.Generator) -> Layer:
    return _recurrent(rng, Lstm(), 4)


def _gru(rng: np.random.Generator) -> Layer:
    return _recurrent(rng, Gru(), 3)


def _rnn(rng: np.random.Generator) -> Layer:
    return _recurrent(rng, Rnn(relu=bool(rng.random() < 0.5)), 1)


def _layer_norm(rng: np.random.Generator) -> Layer:
    channels = int(rng.integers(1, 70))
    parameters = {role: _normal(rng, channels) for role in ("weight", "bias") if rng.random() < 0.8}
    operator = LayerNorm(float(rng.choice([1e-6, 1e-5, 1e-3])), subtract_mean=bool(rng.random() < 0.6))
    return Layer(operator, parameters=parameters, shapes=[_shape(rng, channels)])


def _embedding(rng: np.random.Generator) -> Layer:
    rows, channels, indices = (int(rng.integers(1, most)) for most in (60, 20, 12))
    parameters = {"weight": _normal(rng, rows, channels)}
    return Layer(Embedding(rows), parameters=parameters, shapes=[(indices,)])


def _prelu(rng: np.random.Generator) -> Layer:
    channels = int(rng.integers(1, 30))
    parameters = {"weight": _normal(rng, channels)}
    return Layer(Prelu(), parameters=parameters, shapes=[_shape(rng, channels)])


def _softmax(rng: np.random.Generator) -> Layer:
    return Layer(Softmax(), shapes=[_shape(rng, int(rng.integers(1, 40)))])


def _masked_softmax(rng: np.random.Generator) -> Layer:
    channels, rows, heads = (int(rng.integers(1, most)) for most in (40, 6, 4))
    mask = rng.random((rows, channels)) < 0.6
    mask[:, rng.integers(channels)] = True
    operator = MaskedSoftmax(" ".join("".join(map(str, row)) for row in mask.astype(int).tolist()))
    return Layer(operator, shapes=[(channels, heads, rows)])


#: Functions that are not finite for every number.
NOT_EVERYWHERE = {"log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt"}
#: Functions that jump, which have no table of int16.
JUMPING = {"ceil", "floor", "frac", "hardshrink", "round", "sign", "threshold", "trunc"}


def _table(rng: np.random.Generator) -> Layer:
    name = str(rng.choice([name for name in UNARY_FUNCTIONS if name not in NOT_EVERYWHERE]))
    arguments: dict[str, tuple[tuple[str, float | str], ...]] = {
        "threshold": (("threshold", 0.3), ("value", -0.2)),
        "gelu": (("approximate", "tanh"),),
    }
    return Layer(Table(name, arguments.get(name, ())), shapes=[_shape(rng, int(rng.integers(1, 30)))])


def _expression(rng: np.random.Generator) -> Layer:
    """Two to five calls on any earlier results."""
    calls = [
        ("mul.Tensor", 2, ()),
        ("sub.Tensor", 2, ()),
        ("sigmoid", 1, ()),
        ("abs", 1, ()),
        ("clamp", 1, (("min", 0.0), ("max", None))),
        ("add.Scalar", 1, (("other", float(rng.normal())),)),
        ("rsub.Scalar", 1, (("other", 1.0),)),
    ]
    steps = []
    for index in range(int(rng.integers(2, 6))):
        name, count, arguments = calls[rng.integers(len(calls))]
        operands = tuple(int(operand) for operand in rng.integers(0, index + 1, count))
        steps.append((name, operands, arguments))
    return Layer(Expression(tuple(steps)), shapes=[_shape(rng, int(rng.integers(1, 30)))])


def _move(rng: np.random.Generator) -> Layer:
    """One to three calls in a row on any shape that they go with."""
    shape = tuple(2 * int(side) for side in rng.integers(1, 4, int(rng.integers(1, 4))))
    moved, steps = shape, []
    for _ in range(int(rng.integers(1, 4))):
        step = _step(rng, moved)
        after = tuple(element_numbers((step,), moved).shape)
        if math.prod(after) <= 4000:
            moved, steps = after, [*steps, step]
    return Layer(Move(tuple(steps)), shapes=[shape])


def _step(rng: np.random.Generator, shape: Shape) -> str:
    rank, sides = len(shape), list(shape)
    dim = int(rng.integers(1, rank + 1))
    side = shape[dim - 1]
    start, stop = sorted(rng.choice(side + 1, 2, replace=False).tolist())
    pads = rng.integers(0, 3, 2 * rank).tolist()
    rng.shuffle(sides)
    indices = rng.integers(0, side, int(rng.integers(1, 6))).tolist()
    steps = [
        f"slice.Tensor(dim={dim}, start={start}, end={stop}, step={int(rng.integers(1, 3))})",
        f"permute(dims={[0, *(1 + rng.permutation(rank)).tolist()]})",
        f"flip(dims=[{dim}])",
        f"roll(shifts=[{int(rng.integers(1, 4))}], dims=[{dim}])",
        f"pad(pad={pads})",
        f"pad(pad={[-int(shape[-1] > 1), 1]})",
        f"repeat_interleave.self_int(repeats=2, dim={dim})",
        f"repeat(repeats={[1, *rng.integers(1, 3, rank).tolist()]})",
        f"index_select(dim={dim}, index={indices})",
        f"reshape({', '.join(map(str, sides))})",
    ]
    if rank == 3:
        steps.append("upsample_nearest2d.vec(scale_factors=[2.0, 1.5])")
        steps += [f"channel_shuffle(groups={groups})" for groups in (2, 3) if shape[0] % groups == 0]
        steps += ["pixel_shuffle(upscale_factor=2)"] if shape[0] % 4 == 0 else []
    if rank > 1 and shape[0] > 1:
        steps.append(f"chunk(chunks=2, dim=1)[{int(rng.integers(2))}]")
    return str(rng.choice(steps))


def _activation(rng: np.random.Generator) -> Layer:
    low, high = [(0.0, None), (0.0, 6.0), (-1.0, 1.0)][rng.integers(3)]
    return Layer(Activation(low, high), shapes=[_shape(rng, int(rng.integers(1, 30)))])


#: One line per operator.
MAKERS: dict[type[Operator], Maker] = {
    Activation: _activation,
    Add: _pairwise(Add),
    Argmax: lambda rng: replace(_softmax(rng), operator=Argmax()),
    AveragePool2d: _average_pool2d,
    Concat: _concat,
    Conv2d: _conv2d,
    ConvTranspose2d: _conv_transpose2d,
    DepthwiseConv2d: _depthwise_conv2d,
    Expression: _expression,
    FullyConnected: _fully_connected,
    Gru: _gru,
    History: _history,
    LayerNorm: _layer_norm,
    Lstm: _lstm,
    MaskedSoftmax: _masked_softmax,
    Matmul: _matmul,
    MaxPool2d: _max_pool2d,
    Move: _move,
    Mul: _pairwise(Mul),
    Embedding: _embedding,
    Prelu: _prelu,
    Requantize: _requantize,
    Rnn: _rnn,
    ResizeBilinear: _resize_bilinear,
    LogSoftmax: lambda rng: replace(_softmax(rng), operator=LogSoftmax()),
    Softmax: _softmax,
    Sub: _pairwise(Sub),
    Table: _table,
}
assert set(MAKERS) == set(OPERATORS), "every operator needs a line here"


#: The signature of layers in int16.
INT16 = Signature(("int16",), ("int16",))


def make(operator: type[Operator], seed: int, batch: int = 3) -> Case:
    """A random case, a third of them of int16 where the operator has a kernel for it.

    The output's scale spreads the outputs over its dtype; in a quarter of the cases it is much too small or
    too large, so that multipliers above 1 and below 2^-14 come up.
    """
    rng = np.random.default_rng(seed)
    layer = MAKERS[operator](rng)
    jumps = isinstance(layer.operator, Table) and layer.operator.function in JUMPING
    wide = seed % 3 == 2 and INT16 in layer.operator.signatures and not jumps
    signature = INT16 if wide else layer.operator.signatures[0]
    zero_points = [int(rng.choice([-128, 127, 0, *rng.integers(-128, 128, 3)])) for _ in layer.shapes]
    quantizations = [
        Quantization(float(2.0 ** rng.uniform(-7, -4)), zero_point) for zero_point in zero_points
    ]
    if wide:
        quantizations = [Quantization(one.scale / 256, 0, "int16") for one in quantizations]
    if isinstance(layer.operator, Embedding):
        quantizations = [INDICES]
    if any(isinstance(rule, Shared) for rule in layer.operator.rules):
        quantizations = [quantizations[0] for _ in quantizations]
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        random_integers((batch, *shape), quantization, generator)
        for shape, quantization in zip(layer.shapes, quantizations, strict=True)
    ]
    if isinstance(layer.operator, Embedding):
        inputs = [x.remainder(layer.operator.rows) for x in inputs]
    case = Case(layer.operator, inputs, layer.parameters, input_quantizations=quantizations)
    outputs = [
        _output(rng, rule, signature.output(index), y, quantizations)
        for index, (rule, y) in enumerate(zip(layer.operator.rules, case.real_outputs(), strict=True))
    ]
    case = replace(case, output_quantizations=outputs)
    tensors = case.quantize()
    if "bias" in tensors:
        # The custom operators take it in float32.
        tensors["bias"] = tensors["bias"].float().to(tensors["bias"].dtype)
    return replace(case, tensors=tensors)


def _output(
    rng: np.random.Generator, rule: Rule, dtype: str, y: Tensor, inputs: list[Quantization]
) -> Quantization:
    """The quantization of an output, for its dtype, its real numbers and the quantizations of the inputs."""
    match rule:
        case Fixed():
            return rule.quantization
        case SameAs():
            return inputs[rule.input]
        case Shared():
            return inputs[0]
    low, high = min(float(y.min()), 0.0), max(float(y.max()), 1e-2)
    odd = float(2.0 ** rng.choice([-10, -6, 8, 14])) if rng.random() < 0.25 else 1.0
    if dtype == "int16":
        found = Quantization(max(-low, high) / 32767 * odd, 0, "int16")
        return found.to_power_of_two() if rule.power_of_two else found
    scale = (high - low) / 255
    return Quantization(scale * odd, int(np.clip(round(-128 - low / scale), -128, 127)))
