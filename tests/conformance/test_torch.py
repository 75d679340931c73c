"""The Python operators against TFLM, in plain torch and in nano-core."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import pytest
import torch
from ops.cases import MAKERS, make
from torch import Tensor
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.library.one_layer import run_native
from torch_nano.ops._pairwise import PairwiseOperator
from torch_nano.ops.add import Add
from torch_nano.ops.argmax import Argmax
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.concat import Concat
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.conv_transpose2d import ConvTranspose2d
from torch_nano.ops.depthwise_conv2d import DepthwiseConv2d
from torch_nano.ops.embedding import Embedding
from torch_nano.ops.fully_connected import FullyConnected
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
from torch_nano.ops.softmax import Softmax
from torch_nano.ops.sub import Sub
from torch_nano.ops.table import Table

from . import layers, model, tflm
from .model import Int8

CLAMPS: Mapping[tflm.Activation, dict[str, float]] = {
    "none": {},
    "relu": {"clamp_low": 0.0},
    "relu6": {"clamp_low": 0.0, "clamp_high": 6.0},
}
PAIRWISE: Mapping[type[layers.Pairwise], type[PairwiseOperator]] = {
    layers.Add: Add,
    layers.Mul: Mul,
    layers.Sub: Sub,
}
#: TFLM's only table: made in float32, as ours are. Its other functions are fixed-point approximations.
TABLE = "elu"
ATEN = {"logistic": "sigmoid", "tanh": "tanh", "hard_swish": "hardswish", "leaky_relu": "leaky_relu"}
#: Above, TFLM's sigmoid saturates to 0 at real 0: its fixed point has 4 integer bits.
LARGEST_UNARY_SCALE = 1.0


@dataclass(frozen=True)
class CoarseResize(ResizeBilinear):
    """A resize whose positions TFLM has: its steps have 10 fractional bits."""

    half_pixel_centers: bool = False

    def samples(self, input_: tflm.Pair) -> tuple[tflm.Pair, tflm.Pair]:
        height, width = (self._coarse(side, axis) for axis, side in enumerate(input_))
        return height, width

    def _coarse(self, side: int, axis: int) -> tflm.Pair:
        outputs = self.size[axis]
        corners = int(self.align_corners and outputs > 1)
        step = (1024 * (side - corners) + (outputs - corners) // 2) // (outputs - corners)
        return (step // 2 - 512 if self.half_pixel_centers else 0) << 10, step << 10


def quantization(of: model.Quantization) -> Quantization:
    return Quantization(of.scale, of.zero_point, of.dtype)


def tensors_of(
    made: layers.Conv2d | layers.ConvTranspose2d | layers.DepthwiseConv2d | layers.FullyConnected,
    weights: Int8,
) -> dict[str, Tensor]:
    scales = np.broadcast_to(made.weight_scales, made.bias.shape)
    arrays = {"weights": weights, "bias": made.bias, "weight_scales": scales}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def describe(made: layers.Layer) -> Layer:
    """A layer as torch-nano has it, without inputs."""
    operator, tensors, of_inputs, of_outputs = operator_of(made)
    return Layer(
        operator,
        tensors=tensors,
        input_quantizations=[quantization(each) for each in of_inputs],
        output_quantizations=[quantization(each) for each in of_outputs],
    )


def operator_of(
    made: layers.Layer,
) -> tuple[Operator, dict[str, Tensor], list[model.Quantization], list[model.Quantization]]:
    """Operator, tensors, input quantizations and output quantizations of a layer."""
    match made:
        case layers.Conv2d():
            window = {"stride": made.stride, "padding": made.padding, "dilation": made.dilation}
            conv = Conv2d(made.weights.shape[1:3], **window, groups=made.groups, **CLAMPS[made.activation])
            return conv, tensors_of(made, made.weights), [made.x_quantization], [made.y_quantization]
        case layers.ConvTranspose2d():
            transposed = ConvTranspose2d(
                made.weights.shape[1:3], made.stride, made.padding, **CLAMPS[made.activation]
            )
            return transposed, tensors_of(made, made.weights), [made.x_quantization], [made.y_quantization]
        case layers.DepthwiseConv2d():
            window = {"stride": made.stride, "padding": made.padding, "dilation": made.dilation}
            kernel, clamp = made.weights.shape[1:3], CLAMPS[made.activation]
            weights = made.weights[0].transpose(2, 0, 1)
            if made.depth_multiplier == 1:
                depthwise = DepthwiseConv2d(kernel, **window, **clamp)
                return depthwise, tensors_of(made, weights), [made.x_quantization], [made.y_quantization]
            grouped = Conv2d(kernel, **window, groups=made.x.shape[3], **clamp)
            return grouped, tensors_of(made, weights[..., None]), [made.x_quantization], [made.y_quantization]
        case layers.FullyConnected():
            linear = FullyConnected(**CLAMPS[made.activation])
            return linear, tensors_of(made, made.weights), [made.x_quantization], [made.y_quantization]
        case layers.Pairwise():
            (kind,) = (kind for like, kind in PAIRWISE.items() if isinstance(made, like))
            operator = kind(**CLAMPS[made.activation])
            return operator, {}, [made.a_quantization, made.b_quantization], [made.y_quantization]
        case layers.Matmul():
            matmul = Matmul(made.transpose_b)
            return matmul, {}, [made.a_quantization, made.b_quantization], [made.y_quantization]
        case layers.Lstm():
            names = ("weights", "recurrent_weights", "bias", "weight_scales", "recurrent_weight_scales")
            tensors = {name: torch.from_numpy(getattr(made, name)) for name in names}
            return Lstm(), tensors, [made.x_quantization], [made.y_quantization, made.cell_quantization]
        case layers.Concat():
            # Dimensions without batch: of height, width and channels, the channels come first.
            concat = Concat((made.axis + 1) % 3)
            return concat, {}, [made.quantization] * len(made.sizes), [made.quantization]
        case layers.AveragePool():
            pool = AveragePool2d(made.kernel, made.stride, made.padding, count_include_pad=made.count_padding)
            return pool, {}, [made.quantization], [made.quantization]
        case layers.MaxPool():
            return (
                MaxPool2d(made.kernel, made.stride, made.padding),
                {},
                [made.quantization],
                [made.quantization],
            )
        case layers.Move():
            move, (_, height, width, channels) = Move(steps_of(made)), made.x.shape
            tensors = Layer(move, shapes=[(channels, height, width)]).quantize()
            return move, tensors, [made.quantization], [made.quantization]
        case layers.Prelu():
            tensors = {
                "alpha": torch.from_numpy(made.alpha),
                "alpha_scale": torch.tensor([made.alpha_scale], dtype=torch.float32),
            }
            return Prelu(), tensors, [made.x_quantization], [made.y_quantization]
        case layers.Requantize():
            return Requantize(), {}, [made.x_quantization], [made.y_quantization]
        case layers.ResizeBilinear():
            resize = CoarseResize(made.size, made.align_corners, half_pixel_centers=made.half_pixel_centers)
            exact = ResizeBilinear(made.size, made.align_corners)
            sides = (made.x.shape[1], made.x.shape[2])
            # Where TFLM's positions are exact they are torch's.
            same = resize.samples(sides) == exact.samples(sides)
            return exact if same else resize, {}, [made.quantization], [made.quantization]
        case layers.Argmax():
            return Argmax(), {}, [made.quantization], [tflm.INDEX]
        case layers.Embedding():
            tensors = {"table": torch.from_numpy(made.table)}
            return Embedding(len(made.table)), tensors, [tflm.INDEX], [made.quantization]
        case layers.Softmax():
            return Softmax(), {}, [made.x_quantization], [tflm.SOFTMAX_OUTPUT]
        case layers.MaskedSoftmax():
            masked = MaskedSoftmax(" ".join("".join(map(str, row)) for row in made.mask.astype(int).tolist()))
            return masked, masked.quantize(Layer(masked)), [made.x_quantization], [tflm.SOFTMAX_OUTPUT]
        case layers.LogSoftmax():
            return LogSoftmax(), {}, [made.x_quantization], [tflm.LOG_SOFTMAX_OUTPUT]
        case layers.Unary():
            arguments = (("negative_slope", made.alpha),) if made.function == "leaky_relu" else ()
            table = Table(ATEN.get(made.function, made.function), arguments)
            layer = Layer(
                table,
                input_quantizations=[quantization(made.x_quantization)],
                output_quantizations=[quantization(made.y_quantization)],
            )
            return table, layer.quantize(), [made.x_quantization], [made.y_quantization]
    raise AssertionError(made)


def steps_of(made: layers.Move) -> tuple[str, ...]:
    """What moves, on tensors with the channels first."""
    numbers, to_last = made.numbers, "permute(dims=[0, 2, 3, 1])"
    match made.operator:
        case "pad":
            pads = [pad for dimension in reversed(numbers) for pad in dimension]
            steps = [to_last, f"pad(pad={pads})"]
        case "transpose":
            steps = [to_last, f"permute(dims={list(numbers[0])})"]
        case "strided_slice":
            slices = enumerate(zip(*numbers, strict=True))
            slicing = [f"slice.Tensor(dim={i}, start={b}, end={e}, step={s})" for i, (b, e, s) in slices if i]
            steps = [to_last, *slicing]
        case "split":
            axis, parts, index = numbers[0]
            steps = [to_last, f"chunk(chunks={parts}, dim={axis})[{index}]"]
        case "resize_nearest":
            return (f"upsample_nearest2d.vec(output_size={list(numbers[0])})",)
    return (*steps, "permute(dims=[0, 3, 1, 2])")


def comparable(made: layers.Layer) -> layers.Layer | None:
    """The layer as the Python operators have it; None for what TFLM does not compute as a table."""
    if isinstance(made, layers.MaxPool):
        return replace(made, activation="none")
    if isinstance(made, layers.Unary):
        return made if made.function == TABLE else None
    return made


def channels_first(array: Int8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def comparable_layers(family: str, layer_count: int) -> Iterator[layers.Layer]:
    """As many layers that TFLM computes as we do, of those numbered from 0."""
    generated = (comparable(layers.layer(family, seed=0, index=index)) for index in count())
    return islice((made for made in generated if made is not None), layer_count)


def undecided(made: layers.Unary) -> Tensor:
    """Where the table of ELU depends on the rounding of `exp(x) - 1`, which TFLM computes in float32.

    There the exact output is nearer to a tie of two integers than that difference is to its exact value.
    """
    x = made.x_quantization.scale * (made.x.astype(np.float64) - made.x_quantization.zero_point)
    steps = np.expm1(x) / made.y_quantization.scale
    error = 2.0**-24 / made.y_quantization.scale
    return torch.from_numpy((x < 0) & (np.abs(steps % 1 - 0.5) < error))


@pytest.mark.parametrize("family", layers.FAMILIES)
def test_random_layers_equal_tflm(
    family: str, layer_count: int, compared: Callable[[str, int], None]
) -> None:
    for made in comparable_layers(family, layer_count):
        layer = replace(describe(made), inputs=[channels_first(array) for array in made.inputs()])
        expected = channels_first(made.expected())
        plain = layer.integer_run()
        native = run_native(layer, [tuple(y.shape[1:]) for y in plain])
        if isinstance(made, layers.Unary):
            expected = expected.where(~undecided(made), plain[0])
        assert torch.equal(plain[0], expected), f"plain torch differs from TFLM: {made!r}"
        assert torch.equal(native[0], expected), f"nano-core differs from TFLM: {made!r}"
        # TFLM does not give further outputs.
        for index, (of_torch, of_core) in enumerate(zip(plain, native, strict=True)):
            assert torch.equal(of_torch, of_core), f"output {index} differs: {made!r}"
    compared(family, layer_count)


def operators_without_an_oracle() -> list[type[Operator]]:
    """Those that TFLM does not have: their own files define them, and tests/ops measures their errors."""
    # Of a few layers: a depthwise convolution with a multiplier becomes another operator.
    described = [describe(made).operator for family in layers.FAMILIES for made in layers.layers(family, 8)]
    return [operator for operator in MAKERS if not any(isinstance(one, operator) for one in described)]


@pytest.mark.parametrize("operator", operators_without_an_oracle(), ids=lambda operator: operator.__name__)
def test_random_layers_of_our_own_definition_equal_nano_core(
    operator: type[Operator], layer_count: int, compared: Callable[[str, int], None]
) -> None:
    for seed in range(layer_count):
        case = make(operator, seed)
        plain = case.integer_run()
        native = run_native(case, [tuple(y.shape[1:]) for y in plain])
        for index, (of_torch, of_core) in enumerate(zip(plain, native, strict=True)):
            assert torch.equal(of_torch, of_core), f"output {index} differs: seed {seed}, {case.operator}"
    compared(f"{operator.__name__}, torch and nano-core", layer_count)


class FusedClamp:
    """A pool with the clamp that nano-core can fuse into it; no pass of ours does yet."""

    clamp: tuple[int, int]

    def attributes(self, layer: Layer) -> dict[str, int]:
        attributes: dict[str, int] = super().attributes(layer)  # type: ignore[misc]
        return attributes | dict(zip(("clamp_min", "clamp_max"), self.clamp, strict=True))


@dataclass(frozen=True)
class ClampedMaxPool(FusedClamp, MaxPool2d):
    clamp: tuple[int, int] = (-128, 127)


@dataclass(frozen=True)
class ClampedAveragePool(FusedClamp, AveragePool2d):
    clamp: tuple[int, int] = (-128, 127)


@pytest.mark.parametrize("family", ["max_pool", "average_pool", "max_pool_int16", "average_pool_int16"])
def test_clamps_fused_into_pools_equal_tflm(family: str, layer_count: int) -> None:
    for made in layers.layers(family, layer_count):
        assert isinstance(made, layers.MaxPool)
        clamp = tflm.activation_range(made.activation, made.quantization)
        window = (made.kernel, made.stride, made.padding)
        pool = (
            ClampedAveragePool(*window, count_include_pad=made.count_padding, clamp=clamp)
            if isinstance(made, layers.AveragePool)
            else ClampedMaxPool(*window, clamp=clamp)
        )
        expected, both = channels_first(made.expected()), [quantization(made.quantization)]
        inputs = [channels_first(made.x)]
        layer = Layer(pool, inputs, input_quantizations=both, output_quantizations=both)
        (native,) = run_native(layer, [tuple(expected.shape[1:])])
        assert torch.equal(native, expected), made


def test_other_functions_are_within_one_step_of_tflm(layer_count: int) -> None:
    for made in layers.layers("unary", layer_count):
        assert isinstance(made, layers.Unary)
        if made.function not in ATEN or made.x_quantization.scale > LARGEST_UNARY_SCALE:
            continue
        (ours,) = replace(describe(made), inputs=[channels_first(made.x)]).integer_run()
        difference = ours.to(torch.int32) - channels_first(made.expected()).to(torch.int32)
        assert int(difference.abs().max()) <= 1, made
