"""Bilinear interpolation against torch's: the error bound that nano-core documents."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.capture.capture import capture
from torch_nano.errors import UnsupportedError
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import run_native
from torch_nano.ops.resize_bilinear import ResizeBilinear


@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixels", "corners"])
def test_outputs_differ_from_torch_by_less_than_one_step(align_corners: bool) -> None:
    worst = 0.0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        # Down to a part and up to many times the size, also by factors that are not the ratio of the sizes.
        sides = [int(side) for side in np.exp(rng.uniform(0, np.log(60), 2))]
        factors = [float(rng.choice([2.0, 3.0, rng.uniform(1 / side, 1024 / side / 8)])) for side in sides]
        size = [max(1, int(side * factor)) for side, factor in zip(sides, factors, strict=True)]
        scales = (factors[0], factors[1]) if rng.random() < 0.5 and not align_corners else (None, None)
        # Neighbours as far apart as int8 allows, too.
        levels = [-128, 127] if rng.random() < 0.5 else range(-128, 128)
        x = torch.from_numpy(rng.choice(levels, (1, 2, *sides)).astype(np.int8))
        operator = ResizeBilinear((size[0], size[1]), align_corners, scales)
        both = [Quantization(0.5, int(rng.integers(-128, 128)))]
        layer = Layer(operator, [x], input_quantizations=both, output_quantizations=both)
        (plain,), (native,) = layer.integer_run(), run_native(layer, [(2, *size)])
        assert torch.equal(plain, native), f"seed {seed}: {sides} to {operator}"
        if scales[0] is None:
            real = F.interpolate(x.double(), size, mode="bilinear", align_corners=align_corners)
        else:
            real = F.interpolate(x.double(), scale_factor=factors, mode="bilinear")
        error = float((native - real).abs().max())
        assert error < 1, f"seed {seed}: {error}, {sides} to {operator}"
        worst = max(worst, error)
    # Rounding alone gives 0.5.
    assert worst > 0.5


def test_a_doubled_image_differs_by_rounding_alone() -> None:
    every = torch.arange(-128, 128, dtype=torch.int8)[torch.randperm(256, generator=torch.manual_seed(0))]
    layer = Layer(ResizeBilinear((32, 32)), [every.reshape(1, 1, 16, 16)])
    real = F.interpolate(layer.input.double(), scale_factor=2, mode="bilinear")
    (y,) = layer.integer_run()
    assert float((y - real).abs().max()) <= 0.5


def test_positions_further_apart_than_32_bits_hold_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="its samples are 2048 pixels apart; expected less than 2048"):
        capture(nn.Upsample(1, mode="linear"), torch.zeros(2, 1, 2048))
