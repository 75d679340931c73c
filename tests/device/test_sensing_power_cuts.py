"""The emulated board loses its power while it senses a person's arm and learns it, on one flash file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch_nano as tn
import watch
from torch import Tensor
from torch_nano.device import RecordedSensor, Report, SensingOptions, SensingReplay, replay_sensing
from watch_alone import sensor_of

SEED = 11
#: At random moments, and as many right after a change of the head was reported.
CUTS = 8
#: Windows of a life: bursts with a label each, followed by more without, in which it trains and saves.
WINDOWS, BURST, BETWEEN = 80, 10, 40
OPTIONS = SensingOptions(hop=watch.HOP, smoothing=(5, 3), epochs=20, pause=3, slice=1 << 12)
ERASED = b"\xff" * (1 << 20)
#: Of each head: the event that changes it, and after how many changes it is saved.
HEADS: dict[str, tuple[tn.heads.SGD | tn.heads.LDA | tn.heads.Prototype, str, int]] = {
    "sgd": (tn.heads.SGD(0.05), "trained", 1),
    "lda": (tn.heads.LDA(capacity=len(watch.EXERCISES)), "learned", 4),
    "prototype": (tn.heads.Prototype(), "learned", 4),
}


@pytest.fixture(scope="module")
def windows() -> watch.Windows:
    return watch.load_windows()


@pytest.fixture(scope="module")
def x(windows: watch.Windows) -> Tensor:
    """The windows of the people left out, as the model's input."""
    train = watch.split(windows, watch.FOLDS[0]).train
    return watch.normalise(windows.x, watch.axis_range(windows.x[train]))


@pytest.fixture(scope="module")
def model(windows: watch.Windows, x: Tensor) -> watch.WatchNet:
    """A network that a few of the other people have trained a little."""
    train = watch.split(windows, watch.FOLDS[0]).train[::4]
    return watch.train(x[train], windows.exercise[train], seed=SEED, epochs=1)


def recorded(life: int, windows: watch.Windows, x: Tensor, options: SensingOptions) -> RecordedSensor:
    """Windows of one person's arm, of exercises in random order."""
    random = np.random.default_rng([SEED, life])
    subject, arm = list(watch.person_arms(watch.FOLDS[0]))[life % 6]
    own = np.flatnonzero((windows.subject == subject) & (windows.arm == arm))
    order = np.concatenate(
        [own[start : start + 4] for start in random.integers(0, len(own) - 4, WINDOWS // 4)]
    )
    sensor = sensor_of(x, windows, order, WINDOWS, options)
    pressed = list(sensor.presses.items())
    labelled = dict(press for n, press in enumerate(pressed) if n % BETWEEN < BURST)
    return RecordedSensor(sensor.samples, labelled, gaps=sensor.gaps, options=options)


def live(
    nano: tn.NanoModule, sensor: RecordedSensor, flash: Path, ends: Callable[[list[Report]], bool]
) -> tuple[list[Report], float]:
    """The reports of a board that is killed as soon as `ends`, and the seconds from the first: nothing is
    flushed or closed.
    """
    with tn.device.QemuBoard(nano.image, sensor=sensor, flash=flash) as board:
        sent, start = board.read(1 << 16), time.perf_counter()
        while not ends(reports_in(sent)):
            sent += board.read(1 << 16)
        board._process.kill()
        seconds = time.perf_counter() - start
        while True:
            try:
                sent += board.read(1 << 16)
            except tn.errors.BoardStopped:
                return reports_in(sent), seconds


def reports_in(sent: bytes) -> list[Report]:
    # What comes after the last end byte is a report that was cut.
    return [Report.of(tn._native.decode_response(frame)) for frame in sent.split(b"\0")[:-1] if frame]


def events(reports: list[Report]) -> list[str]:
    return [report.event for report in reports]


def replayed(
    reports: list[Report], sensor: RecordedSensor, nano: tn.NanoModule, flashes: list[bytes], place: str
) -> SensingReplay:
    """The replay from the flash with whose head the board has started."""
    for flash in flashes:
        try:
            return replay_sensing(reports, sensor, nano, flash=flash)
        except tn.device.ReplayDifference as error:
            assert error.step == 0, f"{place}: {error}"
    raise AssertionError(f"{place}: {reports[0]} is none of the heads that it may have saved")


@pytest.mark.parametrize("name", HEADS)
def test_power_cuts_at_any_moment_lose_nothing_that_was_saved(
    name: str, model: watch.WatchNet, windows: watch.Windows, x: Tensor, tmp_path: Path
) -> None:
    tn.freeze(model, "features.*")
    head, change, interval = HEADS[name]
    options = replace(OPTIONS, save_interval=interval)
    nano = tn.to_nano(model, x[:1], calibrate=x[::20], head=head, check=False)
    flash, random = tmp_path / "flash", np.random.default_rng(SEED)
    sensor = recorded(0, windows, x, options)
    whole, seconds = live(nano, sensor, tmp_path / "other", lambda got: "ended" in events(got))
    changes = events(whole).count(change)
    assert events(whole).count("saved") >= 2, events(whole)
    moments = iter(random.permutation((np.arange(CUTS) + random.random(CUTS)) / CUTS) * seconds)
    flashes, predicted, restored, open_ends = [ERASED], 0, 0, 0
    for life in range(2 * CUTS + 1):
        sensor, place = recorded(life, windows, x, options), f"{name}, seed {SEED}, life {life}"
        if life == 2 * CUTS:
            reports, _ = live(nano, sensor, flash, lambda got: "ended" in events(got))
        elif life % 2:
            number = int(random.integers(1, changes // interval + 1)) * interval
            place += f", cut after change {number}"

            def changed(got: list[Report], number: int = number) -> bool:
                return events(got).count(change) >= number or "ended" in events(got)

            reports, _ = live(nano, sensor, flash, changed)
        else:
            end = time.perf_counter() + next(moments)
            place += f", cut after {end - time.perf_counter():.3f} s"

            def late(got: list[Report], end: float = end) -> bool:
                return time.perf_counter() >= end or "ended" in events(got)

            reports, _ = live(nano, sensor, flash, late)
        result = replayed(reports, sensor, nano, flashes, place)
        flashes = list(dict.fromkeys([result.flash, result.flash_when_saved]))
        predicted += result.windows
        restored += reports[0].details["restored"]
        open_ends += len(flashes) - 1
    # Of all three heads more than 1,000.
    assert predicted >= 340 and restored >= CUTS, (predicted, restored)
    assert open_ends > 0, "no cut came between a change of the head and its save"
