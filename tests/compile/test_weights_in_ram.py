"""Weights that the device copies to RAM: the same outputs, the RAM that was allowed, kept by every copy."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from networks import NETWORKS, inputs, make
from torch import nn


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(6, 32, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 24), nn.Tanh()
    )
    return nn.Sequential(*model, nn.Linear(24, 3))


X = inputs((6, 50), 32)


def _nano(weights_in_ram: int) -> tn.NanoModule:
    return tn.to_nano(_model(), X, calibrate=X, head=None, weights_in_ram=weights_in_ram)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_the_outputs_are_the_same_on_the_host(network: str, shape: tuple[int, ...]) -> None:
    x = inputs(shape, 32)
    flash, ram = (tn.to_nano(make(network), x, calibrate=x, weights_in_ram=n) for n in (0, 1 << 30))
    assert flash.weights_in_ram == 0 < ram.weights_in_ram
    assert torch.equal(ram.forward_int8(ram.quantize_input(x)), flash.forward_int8(flash.quantize_input(x)))
    assert ram.verify("host", x)


@pytest.mark.parametrize("budget", [2000, 1 << 30])
def test_the_outputs_are_the_same_on_the_board(budget: int) -> None:
    nano = _nano(budget)
    report = nano.verify("rv32imc", X)
    assert report, report


def test_the_budget_is_kept_and_shown() -> None:
    everything = _nano(1 << 30)
    summary = everything.summary()
    weights = sum(layer.weight_bytes for layer in summary.layers)
    # Each constant begins at a multiple of 16 bytes.
    assert weights <= everything.weights_in_ram < weights + 16 * 3 * len(summary.layers)
    assert summary.weights_in_ram == everything.weights_in_ram
    assert f"({everything.weights_in_ram:,} B copies of weights)" in str(summary)
    assert {layer.memory for layer in summary.layers if layer.weight_bytes} == {"flash, RAM"}
    for budget in (0, 300, everything.weights_in_ram - 1):
        nano = _nano(budget)
        assert nano.weights_in_ram <= budget
        assert 0 <= nano.arena_bytes - _nano(0).arena_bytes - nano.weights_in_ram <= 15
        assert [layer.memory for layer in nano.summary().layers].count("flash, RAM") < 4
    assert "copies" not in str(_nano(0).summary())


def test_copies_files_and_streams_keep_their_weights_in_ram(tmp_path: Path) -> None:
    nano = _nano(2000)
    assert nano.weights_in_ram > 0
    nano.save(tmp_path / "model")
    for again in (tn.load(tmp_path / "model"), copy.deepcopy(nano), pickle.loads(pickle.dumps(nano))):
        assert again.image == nano.image
    causal = nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.Conv1d(8, 4, 3))
    x = inputs((6, 20), 32)
    stream = tn.to_nano(causal, x, calibrate=x, weights_in_ram=1 << 20).stream()
    assert stream.nano.weights_in_ram > 0


def test_weights_in_ram_save_the_waiting_for_flash() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64))
    x = torch.randn(32, 128)
    flash, ram = (
        tn.to_nano(model, x, calibrate=x, check=False, weights_in_ram=n).profile("esp32c3").total
        for n in (0, 1 << 17)
    )
    # A jump for each layer.
    assert ram.instructions <= flash.instructions + 3
    assert ram.flash_lines < 0.1 * flash.flash_lines and ram.cycles < 0.45 * flash.cycles, (ram, flash)


@pytest.mark.parametrize("wrong", [-1, 1.5, "all", None, 1 << 31])
def test_a_wrong_budget_is_refused(wrong: object) -> None:
    with pytest.raises(tn.errors.InputError, match="weights_in_ram is "):
        tn.to_nano(_model(), X, calibrate=X, weights_in_ram=wrong)  # type: ignore[arg-type]
