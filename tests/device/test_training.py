"""Trainings of several slices: Ctrl-C stops them, and lost messages repeat no step."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import with_head
from rich.console import Console
from torch_nano import Device, _native
from torch_nano.device import record, replay
from torch_nano.device.bars import Bars
from torch_nano.errors import DeviceError, DeviceRestarted, DeviceTimeout

from .boards import Board, socket_board

IMAGE = with_head()
INPUTS = np.random.default_rng(0).integers(-128, 128, (50, 216), np.int8)
LABELS = np.arange(50) % 4
#: Epochs over these samples that take a handful of slices.
EPOCHS = 400
STEPS = EPOCHS * len(INPUTS)


@contextmanager
def busy(kind: str, **options: Any) -> Iterator[Device]:
    """A device with samples to train on."""
    with Device(kind, nano=IMAGE, **options) as device:
        teach(device)
        yield device


def teach(device: Device) -> None:
    for input, label in zip(INPUTS, LABELS, strict=True):
        device.learn(input, int(label))


def trained(steps: int | None = None) -> bytes:
    """The head after so many steps of the same training, in one piece on the PC."""
    head = _native.Head(IMAGE)
    (features,) = _native.Model(IMAGE).run([INPUTS])
    head.train(features, LABELS, EPOCHS, 0, steps)
    return head.state()


@contextmanager
def on_slice(device: Device, number: int, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` in the middle of the request for slice `number`, from 0."""
    ask, seen = device._link.ask, 0

    def counting(request: str, response: str, **fields: Any) -> dict[str, Any]:
        nonlocal seen
        if request in ("train", "continue"):
            if seen == number:
                act()
            seen += 1
        return ask(request, response, **fields)

    device._link.ask = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        device._link.ask = ask  # type: ignore[method-assign]


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", ["sim", "qemu"])
def test_a_training_in_slices_is_the_training_in_one_piece(kind: str) -> None:
    with busy(kind) as device:
        before = device.head_state()
        ticks = device.train(EPOCHS)
        assert (ticks > 0) == (kind == "qemu")
        assert [entry.request for entry in device.log].count("continue") > 2
        assert device.head_state() == trained() != before
        assert device.stats().steps == STEPS
        device.undo()
        assert device.head_state() == before


@pytest.mark.parametrize("kind", ["sim", "qemu"])
@pytest.mark.parametrize("number", [0, 2])
def test_ctrl_c_stops_the_training_and_is_recorded(kind: str, number: int, tmp_path: Path) -> None:
    with busy(kind) as device:
        device.reset()
        with record(device, path := tmp_path / "device.record"):
            teach(device)
            before = device.head_state()
            with on_slice(device, number, press_ctrl_c), pytest.raises(KeyboardInterrupt):
                device.train(EPOCHS)
            steps = device.stats().steps
            assert 0 < steps < STEPS
            assert device.head_state() == trained(steps)
            device.train(1)
            state = device.head_state()
        assert replay(path, IMAGE).head.state() == state
        assert f'"steps": {steps}' in path.read_text()
        device.undo()
        assert device.head_state() == trained(steps)
        device.reset()
        teach(device)
        with on_slice(device, number, press_ctrl_c), pytest.raises(KeyboardInterrupt):
            device.fit(INPUTS[:1], [0], epochs=EPOCHS)
        device.undo()
        assert device.head_state() == before


def test_pressed_twice_ctrl_c_does_not_wait_and_the_next_request_settles_it(tmp_path: Path) -> None:
    with busy("sim") as device:
        device.reset()
        with record(device, path := tmp_path / "device.record"):
            teach(device)

            def twice() -> None:
                press_ctrl_c()
                press_ctrl_c()

            with on_slice(device, 1, twice), pytest.raises(KeyboardInterrupt):
                device.train(EPOCHS)
            device.learn(INPUTS[0], 1)
            steps = device.stats().steps
            assert 0 < steps < STEPS
            assert device.head_state() == trained(steps)
        assert replay(path, IMAGE).head.state() == trained(steps)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def losing_answers(board: Board, first: int, count: int) -> Iterator[None]:
    """Loses answers to slices, from number `first` on, so many."""
    seen = 0

    def lose(answer: bytes) -> bytes:
        nonlocal seen
        frames = [_native.decode_response(frame) for frame in answer.split(b"\0") if frame]
        if any(frame["kind"] == "trained" for frame in frames):
            seen += 1
            if first < seen <= first + count:
                return b""
        return answer

    board.on_answer = lose
    try:
        yield
    finally:
        board.on_answer = lambda answer: answer


@pytest.mark.parametrize("first", [0, 1, 3])
def test_lost_answers_cost_no_step(first: int, tmp_path: Path) -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, nano=IMAGE, timeout=0.3) as device:
        with record(device, path := tmp_path / "device.record"):
            teach(device)
            with losing_answers(board, first, 100), pytest.raises(DeviceTimeout):
                device.train(EPOCHS)
            # The same call goes on.
            device.train(EPOCHS)
            assert device.head_state() == trained()
            assert device.stats().steps == STEPS
        assert replay(path, IMAGE).head.state() == trained()


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("other_thread", [False, True])
def test_after_lost_answers_another_change_ends_the_training(
    first: int, other_thread: bool, tmp_path: Path
) -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, nano=IMAGE, timeout=0.3) as device:
        with record(device, path := tmp_path / "device.record"), ThreadPoolExecutor(1) as threads:
            teach(device)
            with losing_answers(board, first, 100), pytest.raises(DeviceTimeout):
                device.train(EPOCHS)
            if other_thread:
                # What changes nothing leaves it open.
                steps = threads.submit(device.stats).result().steps
                assert threads.submit(device.learn, INPUTS[0], 1).result() == 51
            else:
                steps = device.stats().steps
                assert device.learn(INPUTS[0], 1) == 51
            assert device.stats().steps == steps < STEPS
            assert device.head_state() == trained(steps)
        assert replay(path, IMAGE).head.state() == trained(steps)


def test_a_lost_connection_goes_on_with_the_same_training() -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, nano=IMAGE, timeout=0.3) as device:
        teach(device)
        with losing_answers(board, 2, 100), pytest.raises(DeviceTimeout):
            device.train(EPOCHS)
        assert not device.reconnect()
        device.train(EPOCHS)
        assert device.stats().steps == STEPS
        assert device.head_state() == trained()


def test_a_device_that_restarts_in_the_middle_has_no_training(tmp_path: Path) -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, nano=IMAGE) as device:
        with record(device, path := tmp_path / "device.record"):
            teach(device)
            initial = device.head_state()
            with (
                on_slice(device, 2, board.cut_power),
                pytest.raises(DeviceRestarted, match="'continue' was not"),
            ):
                device.train(EPOCHS)
            assert device.head_state() == initial
            teach(device)
            device.train(EPOCHS)
        assert replay(path, IMAGE).head.state() == trained()


def test_a_record_that_ends_in_a_training_leaves_its_steps_open(tmp_path: Path) -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, nano=IMAGE, timeout=0.3) as device:
        with record(device, path := tmp_path / "device.record"):
            teach(device)
            before = device.head_state()
            with losing_answers(board, 1, 100), pytest.raises(DeviceTimeout):
                device.train(EPOCHS)
        repeated = replay(path, IMAGE)
        assert repeated.outcome_unknown and repeated.head.state() == before
        text = path.read_text()
        path.write_text(text + '{"step": 51, "done": true, "steps": 20001, "head_crc32": 1}\n')
        with pytest.raises(
            tn.device.ReplayDifference, match="its twin refuses: the training has 20000 steps, not 20001"
        ):
            replay(path, IMAGE)


def test_the_bar_moves_by_slices() -> None:
    text = io.StringIO()
    with busy("sim") as device:
        device._progress = Bars(True, Console(file=text, force_terminal=True, width=100))
        seen: list[int] = []
        with on_slice(device, 3, lambda: seen.append(len(device.log))):
            device.train(EPOCHS)
    assert seen
    assert re.search(rf"train.*{STEPS}/{STEPS}", text.getvalue())


def test_ctrl_c_leaves_a_head_on_the_pc_as_it_was() -> None:
    nano = tn.heads.head_of(IMAGE)
    assert isinstance(nano, tn.heads.SgdHead)
    (features,) = _native.Model(IMAGE).run([INPUTS])
    before = nano.state()
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            nano.fit(torch.from_numpy(features), torch.from_numpy(LABELS), 1_000_000)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert nano.state() == before


def test_a_device_refuses_too_many_epochs_itself() -> None:
    with busy("sim") as device:
        for epochs, first_epoch in ((1_000_001, 0), (1, 1_000_000), (2**32 - 1, 2**32 - 1)):
            with pytest.raises(DeviceError, match="a training has at most 1000000 epochs") as caught:
                device._link.ask("train", "trained", epochs=epochs, first_epoch=first_epoch)
            assert caught.value.failure == "Epochs"
        for request in ("continue", "stop"):
            with pytest.raises(DeviceError, match="no training is open") as caught:
                device._link.ask(request, "trained")
            assert caught.value.failure == "NoTraining"
