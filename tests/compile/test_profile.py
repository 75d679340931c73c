"""What a model takes on a chip, by the chip's cycle model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import nn


def converted(module: nn.Module, *shape: int) -> tn.NanoModule:
    x = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
    return tn.to_nano(module, x, calibrate=x, check=False)


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 8, 5), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(48, 3))
    tn.freeze(model, "0")
    return converted(model, 2, 28)


@pytest.fixture(scope="module")
def profile(nano: tn.NanoModule) -> tn.results.Profile:
    return nano.profile("esp32c3")


def test_each_layer_and_the_head_has_its_counts(nano: tn.NanoModule, profile: tn.results.Profile) -> None:
    rows = nano.summary().layers
    assert rows[-1].memory == "RAM"
    assert [(row.operator, row.module_path, row.kernel) for row in rows] == [
        (layer.operator, layer.module_path, layer.kernel) for layer in profile.layers
    ]
    for layer in profile.layers:
        counts = layer.counts
        assert counts.cycles >= counts.instructions + counts.flash_cycles + counts.load_use_stalls > 0
    assert profile.total.cycles == sum(layer.counts.cycles for layer in profile.layers)


def test_the_first_run_fills_the_cache(profile: tn.results.Profile) -> None:
    assert profile.first.instructions == profile.total.instructions
    assert profile.first.flash_lines > profile.total.flash_lines
    assert profile.first.cycles > profile.total.cycles


def test_the_counts_are_the_same_every_time(nano: tn.NanoModule, profile: tn.results.Profile) -> None:
    again = nano.profile("ESP32-C3")
    assert (again.layers, again.first) == (profile.layers, profile.first)


def test_it_prints_the_time_at_the_chips_clock_and_says_that_it_is_modelled(
    profile: tn.results.Profile,
) -> None:
    total = profile.total
    milliseconds = f"{total.cycles / 160_000:.2f}"
    assert profile.milliseconds(total) == total.cycles / 160_000
    text = str(profile)
    assert f"{total.cycles:,} cycles, {milliseconds} ms on an ESP32-C3 at 160 MHz, by a model" in text
    assert "captures of an ESP32-C3" in text and "conv2d" in text and "sgd_head" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_summary_shows_the_time(nano: tn.NanoModule, profile: tn.results.Profile) -> None:
    summary = nano.summary(target="esp32c3")
    assert summary.profile is not None and summary.profile.layers == profile.layers
    text = str(summary)
    for layer in profile.layers:
        assert f" {layer.counts.cycles:,} " in text
    assert profile.total_time in text
    assert "cycles" not in str(nano.summary())


def test_weights_beyond_the_cache_are_read_in_every_run_and_once() -> None:
    # 64 KiB of weights before a cache of 16 KiB.
    nano = converted(nn.Linear(256, 256), 256)
    total = nano.profile("esp32c3").total
    lines = 256 * 256 / 32
    assert lines <= total.data_lines <= 1.05 * nano.flash_bytes / 32
    # Each takes the flash 326.3 cycles.
    assert total.cycles > 326 * lines


def test_it_runs_given_inputs_of_several(nano: tn.NanoModule) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    a, b = torch.randn(64, 5), torch.randn(64, 5)
    two = tn.to_nano(Two(), (a, b), calibrate=(a, b), check=False)
    assert two.profile("esp32c3", (a, b)).layers == two.profile("esp32c3", {"a": a[:1], "b": b[:1]}).layers


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda nano: nano.profile("esp32c4"), tn.errors.ChipError),
        (lambda nano: nano.profile("esp32p4"), tn.errors.ChipError),
        (lambda nano: nano.summary(target="esp32p4"), tn.errors.ChipError),
        (lambda nano: nano.profile("esp32c3", torch.zeros(1, 3)), tn.errors.InputError),
        (lambda nano: nano.profile("esp32c3", torch.zeros(0, 2, 28)), tn.errors.InputError),
    ],
)
def test_wrong_arguments_are_refused(
    nano: tn.NanoModule, call: Callable[[tn.NanoModule], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(nano)


def test_a_stream_is_profiled_by_the_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    nano = converted(model, 2, 64)
    step, window = nano.stream().nano.profile("esp32c3"), nano.profile("esp32c3")
    assert 0 < step.total.cycles < window.total.cycles / 2
