"""Real numbers of channels in different units, sent to devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from cli.command_line import run
from torch import Tensor, nn

UNITS = torch.tensor([1.0, 600.0, 0.02])


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm1d(3, momentum=None), nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    )
    model.train()(windows(200))
    return tn.to_nano(model.eval(), windows(2), calibrate=windows(200), head="4")


def windows(samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 3, 8, generator=generator) * UNITS[:, None] - UNITS[:, None]


@pytest.mark.parametrize("board", ["sim", "qemu"])
def test_a_device_sees_the_integers_of_the_pc(nano: tn.NanoModule, board: str) -> None:
    x = windows(12)
    features = nano.features_int8(x)
    with tn.Device(board, nano=nano) as device:
        for window, expected in zip(x, features, strict=True):
            for given in (window, window.numpy()):
                assert np.array_equal(device.predict(given).output, expected.numpy())


def test_without_the_model_the_device_says_what_its_channels_mean(nano: tn.NanoModule) -> None:
    x, y = windows(12), torch.arange(12) % 3
    with tn.Device(tn.device.SimulatedBoard(nano.image)) as device:
        assert device.info.inputs[0].channels == nano.input_channels["input"]
        for window, expected in zip(x, nano.features_int8(x), strict=True):
            assert np.array_equal(device.predict(window).output, expected.numpy())
        device.fit(x, y, epochs=2)
        state = device.head_state()
        with pytest.raises(
            tn.errors.InputError, match=r"shape \[8, 3\] and dtype torch.float32; expected \[3, 8\]"
        ):
            device.predict(x[0].T)
        with pytest.raises(tn.errors.InputError, match="NaN or infinity"):
            device.predict(x[0] / 0)
    head = tn.heads.SgdHead(nano.image)
    head.fit(nano.features_int8(x), y, epochs=2)
    assert head.state() == state


def test_learning_from_real_numbers_is_the_same_on_both_sides(nano: tn.NanoModule) -> None:
    x, y = windows(30), torch.arange(30) % 3
    with tn.Device("sim", nano=nano) as device:
        device.fit(x, y, epochs=5)
        state = device.head_state()
    head = tn.heads.SgdHead(nano.image)
    head.fit(nano.features_int8(x), y, epochs=5)
    assert head.state() == state


def test_verify_on_the_board_takes_real_numbers(nano: tn.NanoModule) -> None:
    report = nano.verify("rv32imc", windows(6))
    assert report and report.inputs == 6


def test_the_command_line_sends_real_numbers(nano: tn.NanoModule, tmp_path: Path) -> None:
    x, y = windows(30), torch.arange(30) % 3
    np.savez(tmp_path / "x.npz", x=x.numpy(), y=y.numpy())
    nano.save(tmp_path / "model")
    lines = run("predict", "sim", tmp_path / "x.npz", "--model", tmp_path / "model").splitlines()
    assert [int(line.split()[0]) for line in lines[:30]] == nano(x).argmax(1).tolist()
