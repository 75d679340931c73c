"""nano-core on the emulated board, with inner loops in the chip's own instructions, against plain torch.

Plain torch is what `test_torch` compares with TFLM.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
import torch
from ops.cases import make
from torch_nano import Device
from torch_nano.arithmetic.layout import from_device, to_device
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.arithmetic.tensors import random_integers
from torch_nano.device import QemuBoard
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.library.one_layer import one_layer_model
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.depthwise_conv2d import DepthwiseConv2d
from torch_nano.ops.fully_connected import FullyConnected
from torch_nano.ops.gru import Gru
from torch_nano.ops.layer_norm import LayerNorm
from torch_nano.ops.rnn import Rnn
from torch_nano.ops.table import Table

from . import layers
from .test_torch import channels_first, comparable_layers, describe

#: Of as many layers as the other tests compare; a board takes a tenth of a second to start.
SHARE = 10


def differing_bytes(layer: Layer) -> int:
    """The number of outputs' elements of one layer that differ between the board and plain torch."""
    expected = layer.integer_run()
    shapes = [tuple(y.shape[1:]) for y in expected]
    model = one_layer_model(layer, shapes)
    with Device(QemuBoard(model.image)) as device:
        sent = zip(*(to_device(x).numpy() for x in layer.inputs), strict=True)
        answers = [device.predict(each if len(each) > 1 else each[0]).outputs.values() for each in sent]
    differing = 0
    for y, shape, given in zip(expected, shapes, zip(*answers, strict=True), strict=True):
        differing += int((from_device(torch.from_numpy(np.stack(given)), shape) != y).sum())
    return differing


@pytest.mark.parametrize("family", layers.FAMILIES)
def test_random_layers_give_the_same_bytes_on_the_board(
    family: str, layer_count: int, compared: Callable[[str, int], None]
) -> None:
    for made in comparable_layers(family, layer_count // SHARE):
        inputs = [channels_first(array) for array in made.inputs()]
        assert differing_bytes(replace(describe(made), inputs=inputs)) == 0, made
    compared(f"{family} on the board", layer_count // SHARE)


@pytest.mark.parametrize("operator", [LayerNorm, Gru, Rnn])
def test_random_layers_of_our_own_definition_give_the_same_bytes(
    operator: type[Operator], layer_count: int
) -> None:
    for seed in range(layer_count // SHARE):
        case = make(operator, seed)
        assert differing_bytes(case) == 0, f"seed {seed}: {case.operator}"


def test_tables_of_int16_give_the_same_bytes(layer_count: int, compared: Callable[[str, int], None]) -> None:
    made = ((seed, make(Table, seed)) for seed in count())
    wide = (each for each in made if each[1].output_quantizations[0].dtype == "int16")
    for seed, case in islice(wide, layer_count // SHARE):
        assert differing_bytes(case) == 0, f"seed {seed}: {case.operator}"
    compared("table_int16 on the board", layer_count // SHARE)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(("kind", "kernel"), [(DepthwiseConv2d, 3), (Conv2d, 1)])
def test_windows_with_a_kernel_of_their_own_give_the_same_bytes(
    kind: type[DepthwiseConv2d] | type[Conv2d], kernel: int, dtype: str, layer_count: int
) -> None:
    """Where stride and padding allow, depthwise 3x3 goes along lines, and 1x1 takes all pixels as one row."""
    compared, tried = 0, layer_count // SHARE * (3 if dtype == "int8" else 1)
    for seed in range(tried):
        rng = np.random.default_rng(seed)
        # Small sides: with padding, a strided 1x1 convolution then has as many pixels after it as before.
        size, stride = rng.integers(1, 14 if kernel == 3 else 5, 2), rng.integers(1, 4, 2)
        padding = rng.integers(0, 2 if rng.random() < 0.8 else 4, 4)
        dilation = rng.integers(1, 3, 2) if rng.random() < 0.3 else np.ones(2, np.int64)
        if np.any(size + padding[[0, 2]] + padding[[1, 3]] <= dilation * (kernel - 1)):
            continue
        channels = int(rng.integers(1, 11))
        inputs = () if kind is DepthwiseConv2d else (channels,)
        outputs = channels if kind is DepthwiseConv2d else int(rng.integers(1, 11))
        operator = kind(
            (kernel, kernel), tuple(stride.tolist()), tuple(padding.tolist()), tuple(dilation.tolist())
        )
        tensors = {
            "weights": rng.integers(-127, 128, (outputs, kernel, kernel, *inputs)).astype(np.int8),
            "bias": rng.integers(-1000, 1000, outputs).astype(np.int32 if dtype == "int8" else np.int64),
            "weight_scales": np.full(outputs, 0.003, np.float32),
        }
        # A multiplier below 1/4, and one above 1, which takes the other form of requantization.
        input_, output = (
            Quantization(scale, int(rng.integers(-128, 128)) if dtype == "int8" else 0, dtype)
            for scale in (0.05, float(rng.choice([0.05, 0.0001])))
        )
        x = random_integers((1, channels, *size), input_, torch.Generator().manual_seed(seed))
        layer = Layer(
            operator,
            [x],
            tensors={name: torch.from_numpy(array) for name, array in tensors.items()},
            input_quantizations=[input_],
            output_quantizations=[output],
        )
        assert differing_bytes(layer) == 0, f"seed {seed}: {operator}, input {tuple(x.shape)}"
        compared += 1
    assert compared > tried // 3


def test_fully_connected_layers_in_pairs_give_the_same_bytes(layer_count: int) -> None:
    """Layers of many inputs and whole blocks of outputs are faster with two channels per multiplication."""
    for seed in range(layer_count // SHARE):
        rng = np.random.default_rng(seed)
        inputs, outputs = int(rng.integers(48, 100)), 16 * int(rng.integers(1, 4))
        weights = rng.integers(-127, 128, (outputs, inputs))
        x = rng.integers(-128, 128, (2, inputs))
        if seed % 3 == 0:  # The largest sums of two products, of either sign.
            weights, x = np.where(weights < 0, -127, 127), np.where(x < 0, -128, 127)
        tensors = {
            "weights": torch.from_numpy(weights.astype(np.int8)),
            "bias": torch.from_numpy(rng.integers(-(10**6), 10**6, outputs).astype(np.int32)),
            "weight_scales": torch.from_numpy(rng.uniform(0.001, 0.01, outputs).astype(np.float32)),
        }
        operator = FullyConnected(clamp_low=0.0 if seed % 2 else None)
        input_ = Quantization(float(np.float32(0.05)), int(rng.integers(-128, 128)))
        # Outputs that fill the range.
        scale = 0.05 * 0.005 * 73 * 74 * inputs**0.5 / 40
        output = Quantization(float(np.float32(scale)), int(rng.integers(-128, 128)))
        sent = torch.from_numpy(x.astype(np.int8))
        layer = Layer(
            operator, [sent], tensors=tensors, input_quantizations=[input_], output_quantizations=[output]
        )
        assert differing_bytes(layer) == 0, f"seed {seed}: {x.shape}"
        model = one_layer_model(layer, [(outputs,)])
        assert model.layers[0]["kernel"] == "fully_connected_pairs"
        (expected,) = layer.integer_run()
        assert np.array_equal(model.run([sent.numpy()])[0], expected.numpy()), f"seed {seed}: {x.shape}"
