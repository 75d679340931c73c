"""Inputs with a scale and an offset of each channel: from the model to the bytes of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.arithmetic.layout import to_device
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor
from torch_nano.compile.saved_model import _KIND, _VERSION
from torch_nano.files import archive

from .exported import run_exported

UNITS = torch.tensor([1.0, 1e-4, 600.0, 9.81, 2e5, 1.0])


def mixed_units(seed: int, samples: int = 300) -> tuple[Tensor, Tensor]:
    """Three channels that say the class, in small units, and three of noise in large ones."""
    torch.manual_seed(seed)
    y = torch.randint(3, (samples,))
    x = torch.cat(
        [
            torch.randn(samples, 3, 50) * 0.3 + (y[:, None, None] - 1),
            torch.randn(samples, 3, 50) * 600,
        ],
        1,
    )
    return x, y


def sensors(seed: int = 0, samples: int = 64) -> Tensor:
    """[N, 6, 20] in units of all sizes, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 6, 20, generator=generator) + torch.tensor([0.0, 5, -3, 40, 0.5, 0])[:, None]
    return x * UNITS[:, None]


def normalized(factors: Tensor | None = None) -> nn.Module:
    """A batch norm with the sensors' statistics, and a convolution with padding."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.Conv1d(6, 8, 3, padding=1), nn.ReLU())
    model.train()(sensors(1, 500))
    with torch.no_grad():
        model[0].bias.uniform_(-1, 1)
        if factors is not None:
            model[0].weight.copy_(factors)
    return model.eval()


def to_nano(model: nn.Module, x: Tensor) -> tn.NanoModule:
    return tn.to_nano(model, x, calibrate=x)


@pytest.mark.parametrize("seed", range(3))
def test_channels_in_other_units_are_all_seen(seed: int) -> None:
    x, y = mixed_units(seed)
    net = nn.Sequential(
        nn.BatchNorm1d(6),
        nn.Conv1d(6, 8, 5),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(60):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    nano = tn.to_nano(net.eval(), x[:2], calibrate=x)
    assert nano.graph.graph.nodes[0].operator.name == "conv2d"
    accuracies = [float((m(x).argmax(1) == y).float().mean()) for m in (net, nano)]
    assert min(accuracies) >= 0.99, f"{accuracies} with seed {seed}"
    assert nano.verify("host", x)


@pytest.mark.parametrize(
    "factors", [None, torch.tensor([1.0, -2.0, 0.5, -1e-3, 0.0, -0.0]), torch.tensor([1e-38, 1, 1, 1, 1, -1])]
)
def test_integers_are_within_half_a_step_of_the_normalized_number(factors: Tensor | None) -> None:
    model, x = normalized(factors), sensors()
    nano = to_nano(model, x)
    quantization = nano.input_quantization
    with torch.no_grad():
        steps = model[0].double()(x.double()) / quantization.scale
    found = nano.quantize_input(x).double() - quantization.zero_point
    low, high = quantization.levels
    # The scale and the offset are float32: for numbers 40 units from zero 1e-4 of a step, and for the bounds.
    assert float((found - steps.clamp(low, high)).abs().max()) <= 0.5 + 1e-3
    assert len(nano.quantize_input(x).unique()) > 100


def test_a_channel_with_the_factor_zero_is_constant_whatever_it_is_given() -> None:
    nano = to_nano(normalized(torch.tensor([1.0, 1, 1, 1, 0, 1])), sensors())
    x = sensors(5)
    x[:, 4] = torch.tensor([0.0, 1e30, -1e30, 1e35]).repeat(5)
    integers = nano.quantize_input(x)[:, 4]
    assert len(integers.unique()) == 1
    expected = quantize_tensor(normalized()[0].bias[4], nano.input_quantization)
    assert int(integers[0, 0]) == int(expected)


def hard_reals(nano: tn.NanoModule, seed: int) -> Tensor:
    """Inputs on the halves between integers and next to them, far outside, and subnormal."""
    channels = nano.input_channels["input"]
    generator = torch.Generator().manual_seed(seed)
    shape = (64, *nano.input_shape)
    halves = torch.randint(-300, 300, shape, generator=generator) / 2
    x = halves * channels.scale[:, None] + channels.offset[:, None]
    direction = torch.where(torch.rand(shape, generator=generator) < 0.5, torch.inf, -torch.inf)
    x = torch.where(torch.rand(shape, generator=generator) < 0.3, x.nextafter(direction), x)
    special = torch.tensor([0.0, -0.0, 1e-42, 3e38, -3e38])
    chosen = special[torch.randint(5, shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.1, chosen, x)


@pytest.mark.parametrize("seed", range(4))
def test_one_native_call_is_torch_s_quantization(seed: int) -> None:
    nano = to_nano(normalized(torch.tensor([1.0, -2.0, 0.5, 1, 0.0, -1])), sensors())
    x = hard_reals(nano, seed)
    expected = dequantize_tensor(nano.forward_int8(nano.quantize_input(x)), nano.output_quantization)
    assert torch.equal(nano(x), expected), f"seed {seed}"
    assert torch.equal(nano(x.double()), expected), f"seed {seed}"


def test_the_image_says_what_the_model_says() -> None:
    nano = to_nano(normalized(), sensors())
    (found,) = tn._native.Model(nano.image).input_channels
    said = nano.input_channels["input"]
    assert found is not None
    assert np.array_equal(found["scale"], said.scale) and np.array_equal(found["offset"], said.offset)


def test_images_divided_by_255() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x / 255)

    torch.manual_seed(0)
    x = torch.randint(0, 256, (32, 3, 8, 8)).float()
    x[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    model = Net().eval()
    nano = to_nano(model, x)
    # Exactly the bytes of the picture.
    assert torch.equal(nano.quantize_input(x).float() + 128, x)
    assert len(nano.graph.graph.nodes) == 1
    step = nano.output_quantization.scale
    with torch.no_grad():
        assert float((nano(x) - model(x)).abs().max()) < 3 * step


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1), nn.Conv1d(2, 4, 1)

    def forward(self, motion: Tensor, other: Tensor) -> Tensor:
        return self.first(self.norm(motion)) + self.second(other)


def test_of_several_inputs_those_with_an_affine_have_channels(tmp_path: Path) -> None:
    model = TwoInputs()
    x = sensors(), torch.randn(64, 2, 20)
    for _ in range(40):
        model(*x)
    nano = tn.to_nano(model.eval(), x, calibrate=x)
    assert list(nano.input_channels) == ["motion"]
    integers = nano.quantize_inputs(*x)
    assert torch.equal(
        nano(*x), dequantize_tensor(nano.forward_int8(*integers), nano.output_quantizations["output"])
    )
    assert nano.verify("host", x)
    nano.save(tmp_path / "model")
    assert torch.equal(tn.load(tmp_path / "model")(*x), nano(*x))


def test_a_saved_model_keeps_them(tmp_path: Path) -> None:
    x = sensors()
    nano = to_nano(normalized(), x)
    nano.save(tmp_path / "model")
    loaded = tn.load(tmp_path / "model")
    assert loaded.image == nano.image and torch.equal(loaded(x), nano(x))
    said, found = nano.input_channels["input"], loaded.input_channels["input"]
    assert torch.equal(said.scale, found.scale) and torch.equal(said.offset, found.offset)


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        ({}, "of its layers this version writes"),
        ({"other": {"scale": torch.ones(6), "offset": torch.zeros(6)}}, "'other', which is no input"),
        ({"input": {"scale": torch.ones(5), "offset": torch.zeros(6)}}, r"\[5\] of torch.float32"),
        ({"input": {"scale": torch.ones(6).double(), "offset": torch.zeros(6)}}, "torch.float64"),
        ({"input": {"scale": torch.zeros(6), "offset": torch.zeros(6)}}, "finite and not 0"),
        ({"input": {"scale": torch.ones(6), "offset": torch.full((6,), torch.nan)}}, "finite offset"),
        ({"input": {"scale": torch.ones(6)}}, "lacks 'offset'"),
        ({"input": 3}, "expected the fields of ChannelScales"),
    ],
)
def test_a_file_with_other_channels_is_refused(channels: Any, reason: str, tmp_path: Path) -> None:
    to_nano(normalized(), sensors()).save(tmp_path / "model")
    contents = archive.unpack(_KIND, _VERSION, (tmp_path / "model").read_bytes())
    contents["channels"] = channels
    (tmp_path / "model").write_bytes(archive.pack(_KIND, _VERSION, contents))
    with pytest.raises(tn.errors.FileFormatError, match=reason):
        tn.load(tmp_path / "model")


@pytest.mark.parametrize("with_channels", [True, False])
def test_the_exported_functions_give_python_s_bytes(with_channels: bool, tmp_path: Path) -> None:
    factors = torch.tensor([1.0, -2.0, 0.5, 1, 0.0, -1])
    model = normalized(factors) if with_channels else nn.Sequential(nn.Conv1d(6, 8, 3, padding=1))
    x = sensors() / (1 if with_channels else UNITS[:, None])
    nano = to_nano(model, x)
    reals = hard_reals(nano, 9) if with_channels else x * 1.5
    program = """mod model;
        use std::io::{Read, Write};

        fn main() {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).unwrap();
            let real = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
            let reals: Vec<f32> = bytes.chunks(4).map(real).collect();
            let mut out = std::io::stdout().lock();
            for sample in reals.chunks(model::INPUT_LENGTH) {
                let integers = model::quantize(sample.try_into().unwrap());
                out.write_all(&integers.map(|integer| integer as u8)).unwrap();
            }
            for integer in -128..=127 {
                for real in model::dequantize(&[integer; model::OUTPUT_LENGTH]) {
                    out.write_all(&real.to_le_bytes()).unwrap();
                }
            }
        }
        """
    # Python refuses these.
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(40).reshape(1, 6, 20)
    given = to_device(torch.cat([reals, odd])).numpy().tobytes()
    printed = run_exported(nano, tmp_path, program, given)
    expected = to_device(nano.quantize_input(reals)).numpy().tobytes()
    assert printed[: len(expected)] == expected
    channels = nano.input_channels.get("input")
    rises = torch.ones(6) if channels is None else channels.scale.sign()
    ends = torch.stack([torch.full((6,), nano.input_quantization.zero_point), 127 * rises, -127 * rises], 1)
    ends = torch.where(ends == -127, -128, ends)
    # [6, 20] of nan, inf, -inf in turn, each row from where the one before it ends.
    turns = torch.arange(120).reshape(6, 20) % 3
    clamped = ends.gather(1, turns).to(torch.int8)[None]
    rest = printed[len(expected) :]
    assert rest[:120] == to_device(clamped).numpy().tobytes()
    every = torch.arange(-128, 128).to(torch.int8)[:, None].expand(-1, 160)
    assert rest[120:] == dequantize_tensor(every, nano.output_quantization).numpy().tobytes()


def test_channels_without_an_affine_are_warned_of() -> None:
    x, _ = mixed_units(0)
    with pytest.warns(tn.errors.ChannelRangeWarning, match=r"input 'input'.*: 0 \(.* steps\), 1 .*BatchNorm"):
        tn.to_nano(nn.Conv1d(6, 2, 3), x, calibrate=x)
    with pytest.warns(tn.errors.ChannelRangeWarning):
        tn.prepare_qat(nn.Conv1d(6, 2, 3), x, calibrate=x)


def test_a_constant_channel_and_one_of_a_tenth_of_the_range_are_not() -> None:
    x = torch.randn(200, 3, 20) * torch.tensor([1.0, 0.1, 0.0])[:, None]
    tn.to_nano(nn.Conv1d(3, 2, 3), x, calibrate=x)
