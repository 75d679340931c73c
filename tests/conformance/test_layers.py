"""The random layers: reproducible from their repr, defined in TFLM, with many edge cases."""

import math
from collections import Counter

import numpy as np
import pytest

from .layers import (
    FAMILIES,
    AveragePool,
    ConcatInt16,
    Conv2d,
    DepthwiseConv2d,
    Embedding,
    FullyConnected,
    Layer,
    Matmul,
    MaxPool,
    MoveInt16,
    Pairwise,
    Requantize,
    Unary,
    layer,
    layers,
)
from .model import Quantization
from .tflm import accumulator_bound


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_is_made_again_from_its_repr(family: str) -> None:
    for made in layers(family, 20, seed=3):
        again = eval(repr(made), {"layer": layer})
        assert vars(again).keys() == vars(made).keys()
        for name, value in vars(made).items():
            assert np.array_equal(getattr(again, name), value), f"{made!r}: {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_tflm_runs_every_layer(family: str, layer_count: int) -> None:
    telling = 0
    for made in layers(family, layer_count):
        try:
            telling += np.unique(made.expected()).size > 1
        except Exception as error:
            raise AssertionError(repr(made)) from error
    # A layer whose outputs are all equal proves little; 5 is for the chance in small counts.
    assert telling >= 0.6 * layer_count - 5


def window_edges(made: Conv2d | DepthwiseConv2d | MaxPool) -> set[str]:
    """The edge cases of a layer that moves a window over an image."""
    size = made.x.shape[1:3]
    kernel = made.kernel if isinstance(made, MaxPool) else made.weights.shape[1:3]
    dilation = (1, 1) if isinstance(made, MaxPool) else made.dilation
    top, bottom, left, right = made.padding
    edges = {
        "1x1 image": size == (1, 1),
        "height 1": size[0] == 1 < size[1],
        "one channel": made.x.shape[3] == 1,
        "channels not a multiple of 4": made.x.shape[3] % 4 != 0,
        "kernel larger than the image": any(
            (k - 1) * d + 1 > s for k, d, s in zip(kernel, dilation, size, strict=True)
        ),
        "stride larger than the kernel": any(s > k for s, k in zip(made.stride, kernel, strict=True)),
        "no padding": not any(made.padding),
        "even padding": top == bottom and left == right and any(made.padding),
        "uneven padding": top != bottom or left != right,
        "dilation": dilation != (1, 1),
        "batch": made.x.shape[0] > 1,
        made.activation: True,
    }
    return {name for name, holds in edges.items() if holds}


def weighted_edges(made: Conv2d | DepthwiseConv2d | FullyConnected) -> set[str]:
    """The edge cases of a layer with weights."""
    weights = made.weights.transpose(3, 0, 1, 2) if isinstance(made, DepthwiseConv2d) else made.weights
    multipliers = (
        made.x_quantization.scale * made.weight_scales.astype(np.float64) / made.y_quantization.scale
    )
    # In channels without weights the accumulator is the bias.
    empty = ~weights.reshape(len(weights), -1).any(axis=1)
    from_a_tie = np.abs(np.abs(made.bias * multipliers) % 1 - 0.5) / multipliers
    edges = {
        "x zero point -128": made.x_quantization.zero_point == -128,
        "x zero point 127": made.x_quantization.zero_point == 127,
        "y zero point -128": made.y_quantization.zero_point == -128,
        "y zero point 127": made.y_quantization.zero_point == 127,
        "one scale": len(made.weight_scales) == 1 < len(weights),
        "multiplier below 2^-14": bool((multipliers < 2**-14).any()),
        "multiplier taken for 0": bool((multipliers < 2**-33).any()),
        "multiplier above 1": bool((multipliers > 1).any()),
        "multiplier a power of two": any(math.frexp(m)[0] == 0.5 for m in multipliers.tolist()),
        "accumulator near 2^31": bool((accumulator_bound(weights, made.bias) > 2**31 - 2**10).any()),
        "accumulator beside a tie": bool((empty & (from_a_tie < 3) & (multipliers < 0.01)).any()),
        "bias 0": not made.bias.any(),
        made.activation: True,
    }
    return {name for name, holds in edges.items() if holds}


def edges_of(made: Layer) -> set[str]:
    """The names of the edge cases that a layer is."""
    edges: set[str] = set()
    if isinstance(made, Conv2d | DepthwiseConv2d | MaxPool):
        edges |= window_edges(made)
    if isinstance(made, Conv2d | DepthwiseConv2d | FullyConnected):
        edges |= weighted_edges(made)
    if isinstance(made, Conv2d) and made.groups > 1:
        edges.add("groups")
    if isinstance(made, DepthwiseConv2d) and made.depth_multiplier > 1:
        edges.add("depth multiplier")
    if isinstance(made, AveragePool) and any(made.padding):
        edges.add("padding counted" if made.count_padding else "padding not counted")
    return edges


@pytest.mark.parametrize(
    ("family", "distinct"),
    [("conv2d", 27), ("depthwise_conv2d", 27), ("fully_connected", 15), ("average_pool", 15)],
)
def test_300_layers_hold_every_edge_case_often(family: str, distinct: int) -> None:
    counts = Counter(edge for made in layers(family, 300) for edge in edges_of(made))
    assert len(counts) == distinct, counts
    assert min(counts.values()) >= 5, counts


def extremes_of(made: Layer) -> set[str]:
    """The ends of what a layer's quantizations, inputs and outputs can be."""
    quantizations = {name: of for name, of in vars(made).items() if isinstance(of, Quantization)}
    extremes = {
        f"{name} zero point {of.zero_point}"
        for name, of in quantizations.items()
        if of.dtype == "int8" and of.zero_point in (-128, 127)
    }
    y = made.expected()
    ends = np.iinfo(y.dtype)
    extremes |= {f"output {end}" for end in (ends.min, ends.max) if (y == end).any()}
    of_inputs = [(x, np.iinfo(x.dtype)) for x in made.inputs()]
    if all(np.isin(x, (of_x.min, of_x.max)).all() for x, of_x in of_inputs):
        extremes.add("inputs of the ends alone")
    if isinstance(made, Pairwise | Matmul | Requantize | Unary):
        output = quantizations.pop("y_quantization")
        ratio = max(of.scale for of in quantizations.values()) / output.scale
        extremes |= {"scale ratio below 2^-8"} if ratio < 2**-8 else set()
        extremes |= {"scale ratio above 2^2"} if ratio > 2**2 else set()
    return extremes


@pytest.mark.parametrize("family", FAMILIES)
def test_100_layers_go_to_all_ends(family: str) -> None:
    counts = Counter(extreme for made in layers(family, 100) for extreme in extremes_of(made))
    example = layer(family, 0, 0)
    expected = {
        f"{name} zero point {end}"
        for name, of in vars(example).items()
        if isinstance(of, Quantization) and "int16" not in family and name != "cell_quantization"
        for end in (-128, 127)
    }
    ends = np.iinfo(example.expected().dtype) if family != "requantize_dtypes" else np.iinfo(np.int8)
    # Outputs of int32 are indices.
    expected |= {f"output {end}" for end in (ends.min, ends.max) if ends.dtype != np.int32}
    # Of these layers each has all 256 numbers, or those of wider dtypes.
    if not isinstance(example, Embedding | Requantize | Unary | MoveInt16 | ConcatInt16):
        expected.add("inputs of the ends alone")
    if isinstance(example, Pairwise | Matmul | Requantize | Unary):
        expected |= {"scale ratio below 2^-8", "scale ratio above 2^2"}
    assert expected <= counts.keys(), (expected - counts.keys(), counts)
