"""Tests a board against this PC: its bytes, its learning, power cuts, and its speed."""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch_nano as tn
from numpy.typing import NDArray
from torch_nano import Device
from torch_nano.device import DeviceInfo
from torch_nano.errors import DeviceError

from .boards import Board
from .errors import FirmwareError

#: One integer array for each input, by name.
Sample = Mapping[str, NDArray[Any]]
#: Predicts the ticks of each layer and the head for a sample.
Predict = Callable[[Sample], Sequence[int]]
#: Inputs whose outputs are compared; the first two are the least and the largest numbers.
INPUTS = 32
#: Samples of a lesson, and its epochs for a head that learns in epochs.
SAMPLES, EPOCHS = 12, 20
#: Power cuts.
CUTS = 8
#: The cycle model holds if it differs by no more than this part: its costs were measured on chips.
TOLERANCE = 0.1
#: Moments are up to so many times as late as a lesson takes: some come after its save.
_LATEST = 1.2


class HeadInFlash(FirmwareError):
    """The board has a saved head, which the test would replace."""


class NotRestarted(FirmwareError):
    """The board went on when its power should have been cut, so the test shows nothing."""


@dataclass(frozen=True)
class Check:
    """One property of the board."""

    name: str
    passed: bool
    #: What was compared, and what differs.
    details: str


@dataclass(frozen=True)
class Report:
    """The result of a test, true if the board passed."""

    board: str
    chip: str
    model: str
    #: CRC-32 of the model's image.
    model_id: int
    #: The random numbers' seed.
    seed: int
    checks: tuple[Check, ...]
    #: Cycles of each layer and the head on the board (instructions on the emulated one).
    layers: tuple[int, ...]
    #: The same as the chip's cycle model predicts; empty without a model.
    predicted: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        rows = [
            f"{'ok' if check.passed else 'FAILED':6} {check.name}: {check.details}" for check in self.checks
        ]
        verdict = "passed" if self else "FAILED"
        return "\n".join([f"{self.board} ({self.chip}), model {self.model!r}: {verdict}", *rows])

    def write(self, file: Path) -> None:
        """Writes all of it as JSON, with the versions of the software."""
        versions = {
            "torch_nano": tn.__version__,
            "python": platform.python_version(),
            "os": platform.platform(),
        }
        content = {"passed": bool(self), "date": time.strftime("%Y-%m-%d %H:%M:%S%z"), "versions": versions}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content | asdict(self), indent=2) + "\n")


def test(
    board: Board,
    chip: str,
    image: bytes,
    *,
    seed: int,
    replace: bool = False,
    predict: Predict | None = None,
    tell: Callable[[str], None] = print,
) -> Report:
    """Runs all checks that the model allows. The board then has the head of its image, and has saved it.

    Args:
        image: the model that the board runs.
        replace: test even if the board's flash has a head, which is then lost.
        predict: the ticks of each layer that one sample is predicted to take; None: there is no prediction.
        tell: is called with each check as it begins.

    Raises:
        HeadInFlash: the board's flash has a head.
        torch_nano.errors.DeviceError: the board does not answer, or runs another model.
        PortError: the board has no reset line.
        NotRestarted: the reset line has no effect.
    """
    device = board.connect()
    info, settings = device.info, device.settings
    if info.saved is not None and not replace:
        raise HeadInFlash(
            f"{board.name} has a saved head, which the test would replace. Keep it with "
            "`torch-nano device read-head`, then test with --replace-head"
        )
    checks, learns = [], info.head_length > 0
    if learns:
        device.reset()
        # Else the board could save in the middle of a lesson.
        device.configure(save_interval=0)
    tell(f"conformance: {INPUTS} inputs")
    checks.append(conformance(board, image, seed))
    tell("speed")
    sample = _inputs(info, 3, seed)[2]
    predicted = [] if predict is None else predict(sample)
    speed, layers = timed(board, sample, predicted)
    checks.append(speed)
    if learns:
        tell(f"learning: {SAMPLES} samples")
        checks.append(learning(board, image, seed))
        tell(f"power cuts: {CUTS}")
        checks.append(power_cuts(board, image, seed))
        device = board.connect()
        device.reset()
        device.configure(save_interval=settings.save_interval)
        device.save()
    return Report(
        board.name, chip, info.name, info.model_id, seed, tuple(checks), tuple(layers), tuple(predicted)
    )


def conformance(board: Board, image: bytes, seed: int) -> Check:
    """Compares the outputs and logits of inputs with those of this PC."""
    compared = differing = 0
    device = board.connect()
    with Device("sim", nano=image) as here:
        for sample in _inputs(device.info, INPUTS, seed):
            device.reset_states()
            here.reset_states()
            made, expected = device.predict(sample), here.predict(sample)
            for name, output in {**expected.outputs, "logits": expected.logits}.items():
                found = made.logits if name == "logits" else made.outputs[name]
                compared += output.nbytes
                differing += int(np.count_nonzero(_octets(output) != _octets(found)))
    return Check("conformance", differing == 0, f"{compared:,} bytes compared, {differing:,} differ")


def timed(board: Board, sample: Sample, predicted: Sequence[int]) -> tuple[Check, list[int]]:
    """Measures the model's layers, twice: the second run finds the chip's cache as a run leaves it."""
    device = board.connect()
    device.profile(sample)
    layers = device.profile(sample)
    total = sum(layers)
    details = f"{total:,} {board.ticks} in {len(layers)} layers"
    if not predicted:
        return Check("speed", True, f"{details}; no prediction"), layers
    ratio = total / sum(predicted)
    as_predicted = abs(ratio - 1) <= TOLERANCE
    return Check("speed", as_predicted, f"{details}, {ratio:.3f} times the prediction"), layers


def learning(board: Board, image: bytes, seed: int) -> Check:
    """Compares the head after a lesson with that of the same lesson on this PC."""
    expected = _lesson_here(image, seed)
    device = board.connect()
    _learn(device, seed)
    state = device.head_state()
    differing = sum(a != b for a, b in zip(state, expected, strict=True))
    return Check(
        "learning", differing == 0, f"{len(state):,} bytes of the head compared, {differing:,} differ"
    )


def power_cuts(board: Board, image: bytes, seed: int) -> Check:
    """Cuts the power at random moments of lessons that end with a save: each time the board must start with
    the head of the lesson, or with the one saved before.
    """
    moments = random.Random(seed)
    device = board.connect()
    start = time.perf_counter()
    _learn_and_save(device, seed)
    lasts = time.perf_counter() - start
    saved, kept, lost = _lesson_here(image, seed), 0, []
    for number in range(1, CUTS + 1):
        device = board.connect()
        moment = moments.uniform(0, _LATEST * lasts)
        with ThreadPoolExecutor(1) as other_thread:
            work = other_thread.submit(_learn_and_save, device, seed + number)
            time.sleep(moment)
            board.cut_power()
            error = work.exception()
        if error is not None and not isinstance(error, DeviceError | OSError):
            raise error
        learnt = _lesson_here(image, seed + number)
        device = board.connect()
        if device.stats().learned:
            raise NotRestarted(
                f"{board.name} did not restart when its reset line was pulled: connect RTS to EN"
            )
        state = device.head_state()
        if state == learnt:
            saved, kept = learnt, kept + 1
        elif state != saved:
            lost.append(f"cut {number} after {moment:.3f} s")
    details = f"{CUTS} cuts, {kept} after the save, {len(lost)} lost a head"
    return Check("power cuts", not lost, "; ".join([details, *lost]))


def _learn_and_save(device: Device, seed: int) -> None:
    _learn(device, seed)
    device.save(replace=True)


def _learn(device: Device, seed: int) -> None:
    """One lesson, from the model's first head."""
    device.reset()
    samples = _inputs(device.info, SAMPLES, seed)
    for index, sample in enumerate(samples):
        device.learn(sample, _label(device.info, index))
    if device.info.ring_capacity:
        device.train(EPOCHS)
    else:
        device.commit()


def _lesson_here(image: bytes, seed: int) -> bytes:
    """The head's state after the same lesson on this PC."""
    with Device("sim", nano=image) as here:
        _learn(here, seed)
        return here.head_state()


def _label(info: DeviceInfo, index: int) -> Any:
    if info.target == "value":
        return index / SAMPLES
    if info.target == "labels":
        return [index >> bit & 1 == 1 for bit in range(info.classes)]
    return index % info.classes


def _inputs(info: DeviceInfo, count: int, seed: int) -> list[Sample]:
    """Random integers for all inputs; the first two samples are the least and the largest numbers."""
    numbers = np.random.default_rng(seed)
    samples: list[Sample] = []
    for index in range(count):
        sample = {}
        for value in info.inputs:
            bounds = np.iinfo(value.dtype)
            made = numbers.integers(bounds.min, bounds.max, value.elements, value.dtype, endpoint=True)
            sample[value.name] = (made, np.full_like(made, bounds.min), np.full_like(made, bounds.max))[
                (index == 0) + 2 * (index == 1)
            ]
        samples.append(sample)
    return samples


def _octets(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(array.tobytes(), np.uint8)
