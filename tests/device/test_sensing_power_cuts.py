"""The emulated board loses its power at random moments while it senses and learns, on one flash file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import nn
from torch_nano import RecordedSensor, Report, SensingOptions, SensingReplay, replay_sensing

SEED = 11
CUTS = 15
CHANNELS, LENGTH, CLASSES = 3, 20, 4
SAMPLES, BURST = 2400, 400
OPTIONS = SensingOptions(hop=5, smoothing=(5, 3), epochs=20, pause=6, slice=1 << 9, period=200_000)
ERASED = b"\xff" * (1 << 16)


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    torch.manual_seed(SEED)
    model = nn.Sequential(
        *(nn.Conv1d(CHANNELS, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(8, CLASSES),
    )
    x = torch.randn(64, CHANNELS, LENGTH)
    return tn.to_nano(model, x, calibrate=x, head="4", learning_rate=0.05, check=False)


def recorded(life: int) -> RecordedSensor:
    """Bursts of labels, each followed by as many samples without, in which it trains and saves."""
    random = np.random.default_rng([SEED, life])
    classes = np.repeat(random.integers(0, CLASSES, SAMPLES // 40), 40)
    samples = random.standard_normal((SAMPLES, CHANNELS)) * (1 + classes[:, None] / 2)
    labelled = [n for n in range(LENGTH, SAMPLES) if n // BURST % 2 == 0 and n % 10 == 4]
    return RecordedSensor(samples, {n: int(classes[n]) for n in labelled}, options=OPTIONS)


def live(nano: tn.NanoModule, sensor: RecordedSensor, flash: Path, seconds: float) -> list[Report]:
    """The reports of a board that is killed so many seconds after its first: nothing is flushed or closed."""
    with tn.QemuBoard(nano.image, sensor=sensor, flash=flash) as board:
        sent = board.read(1 << 16)
        time.sleep(seconds)
        board._process.kill()
        while True:
            try:
                sent += board.read(1 << 16)
            except tn.BoardStopped:
                return reports_in(sent)


def uncut(nano: tn.NanoModule, sensor: RecordedSensor, flash: Path) -> tuple[list[Report], float]:
    """All reports of a board, and the seconds from the first to the last."""
    with tn.QemuBoard(nano.image, sensor=sensor, flash=flash) as board:
        sent = board.read(1 << 16)
        start = time.perf_counter()
        while "ended" not in [report.event for report in reports_in(sent)]:
            sent += board.read(1 << 16)
        return reports_in(sent), time.perf_counter() - start


def reports_in(sent: bytes) -> list[Report]:
    # What comes after the last end byte is a report that was cut.
    return [Report.of(tn._native.decode_response(frame)) for frame in sent.split(b"\0")[:-1] if frame]


def replayed(
    reports: list[Report], sensor: RecordedSensor, nano: tn.NanoModule, flashes: list[bytes], place: str
) -> SensingReplay:
    """The replay from the flash with whose head the board has started."""
    for flash in flashes:
        try:
            return replay_sensing(reports, sensor, nano, flash=flash)
        except tn.ReplayDifference as error:
            assert error.step == 0, f"{place}: {error}"
    raise AssertionError(f"{place}: {reports[0]} is none of the heads that it may have saved")


def test_power_cuts_at_any_moment_lose_nothing_that_was_saved(nano: tn.NanoModule, tmp_path: Path) -> None:
    flash, random = tmp_path / "flash", np.random.default_rng(SEED)
    whole, seconds = uncut(nano, recorded(0), tmp_path / "other")
    assert sum(report.event == "saved" for report in whole) >= 3
    moments = random.permutation((np.arange(CUTS) + random.random(CUTS)) / CUTS) * seconds
    flashes, windows, restored, open_ends = [ERASED], 0, 0, 0
    for life in range(CUTS + 1):
        sensor, place = recorded(life), f"seed {SEED}, life {life}"
        if life < CUTS:
            place += f", cut after {moments[life]:.3f} s"
            reports = live(nano, sensor, flash, moments[life])
        else:
            reports, _ = uncut(nano, sensor, flash)
        result = replayed(reports, sensor, nano, flashes, place)
        flashes = list(dict.fromkeys([result.flash, result.flash_when_trained]))
        windows += result.windows
        restored += reports[0].details["restored"]
        open_ends += len(flashes) - 1
    assert windows >= 1000 and restored >= CUTS // 2, (windows, restored)
    assert open_ends > 0, "no cut came between a change of the head and its save"
