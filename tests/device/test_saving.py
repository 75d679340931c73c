"""Saved heads after power cuts: the emulated board is killed; the simulated device behaves the same."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cli.command_line import run
from images import with_head
from torch_nano import _native
from torch_nano.device.client import Device, DeviceError
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.errors import BoardError, BoardStopped

FLASH = 32 << 20


def random_inputs(image: bytes, count: int, seed: int = 0) -> npt.NDArray[np.int8]:
    model = _native.Model(image)
    (input,) = model.inputs
    width = int(np.prod(model.values[input]["shape"]))
    return np.random.default_rng(seed).integers(-128, 128, (count, width), np.int8)


class Simulated:
    """A simulated device as a stream."""

    def __init__(self, image: bytes, flash: bytes | None = None, **options: int) -> None:
        self.device = _native.SimulatedDevice(image, flash, **options)
        self.answers = b""

    def write(self, data: bytes) -> None:
        # In pieces, as a port takes them.
        for start in range(0, len(data), 7):
            self.answers += self.device.exchange(data[start : start + 7])

    def read(self, size: int) -> bytes:
        start, self.answers = self.answers[:size], self.answers[size:]
        return start

    def close(self) -> None:
        pass


def ask(device: Device, request: str, **fields: Any) -> dict[str, Any]:
    """The answer to a request that the client does not send itself."""
    device._link.stream.write(_native.encode_request(request, **fields))
    return _native.decode_response(device._link._frame(time.monotonic() + 60))


def kill(board: QemuBoard) -> None:
    """As a power cut: nothing is flushed, nothing is closed."""
    board._process.send_signal(signal.SIGKILL)
    with pytest.raises(BoardStopped):
        while True:
            board.read(1 << 16)  # what it sent before


def learn(device: Device, image: bytes, seed: int, epochs: int) -> bytes:
    for number, input in enumerate(random_inputs(image, 12, seed)):
        device.learn(input, number % 4)
    device.train(epochs)
    return device.head_state()


def test_a_board_that_is_killed_goes_on_with_the_head_it_saved(tmp_path: Path) -> None:
    image = with_head()
    # QEMU's options have commas of their own.
    flash = tmp_path / "fl,ash"
    saved = b""
    for start in range(3):
        board = QemuBoard(image, flash=flash)
        device = Device(board)
        info = ask(device, "info")
        assert (info["saved"], info["restored"]) == ((start or None), start > 0)
        if start:
            assert device.head_state() == saved
        saved = learn(device, image, start, 2)
        assert ask(device, "save", replace=False)["count"] == start + 1
        assert learn(device, image, start + 10, 1) != saved
        kill(board)
    assert flash.stat().st_size == FLASH
    with Device(QemuBoard(image)) as forgetful:
        assert forgetful.head_state() == _native.Head(image).state()


def test_a_board_that_is_killed_while_it_saves_has_the_old_head_or_the_new_one(tmp_path: Path) -> None:
    image = with_head()
    flash = tmp_path / "flash"
    states = {_native.Head(image).state()}
    for start in range(8):
        board = QemuBoard(image, flash=flash)
        device = Device(board)
        assert device.head_state() in states, f"start {start}"
        device._ask("configure", "done", rejection=0, save_interval=1)
        states = {device.head_state()}
        for input in random_inputs(image, 4, start):
            device.learn(input, start % 4)
        for _ in range(start):
            device.train(1)
            states = {device.head_state()}
        # The answer is not waited for; by then it trains, saves, or is done.
        head = _native.Head(image)
        head.load(device.head_state())
        board.write(_native.encode_request("train", first_epoch=0, epochs=1))
        kill(board)
        inputs = random_inputs(image, 4, start)
        (features,) = _native.Model(image).run([inputs])
        head.train(features, np.full(4, start % 4), 1)
        states.add(head.state())
        assert len(states) == 2


def test_the_head_of_another_model_is_refused_and_kept(tmp_path: Path) -> None:
    image, other = with_head(), with_head(learning_rate=0.1)
    flash = tmp_path / "flash"
    with Device(QemuBoard(image, flash=flash)) as device:
        saved = learn(device, image, 0, 1)
        ask(device, "save", replace=False)
    with Device(QemuBoard(other, flash=flash)) as device:
        for request, fields in (("load", {}), ("save", {"replace": False})):
            answer = ask(device, request, **fields)
            message = f"the head saved on the device belongs to another model, {_native.Model(image).id:08x}"
            assert answer["kind"] == "refused" and answer["reason"].startswith(message)
    with Device(QemuBoard(image, flash=flash)) as device:
        assert device.head_state() == saved


def test_a_file_of_another_size_is_no_flash(tmp_path: Path) -> None:
    file = tmp_path / "flash"
    file.write_bytes(b"something else")
    with pytest.raises(BoardError, match=f"has 14 bytes; a file for the board's flash has {FLASH}"):
        QemuBoard(with_head(), flash=file)
    assert file.read_bytes() == b"something else"


def test_two_emulated_boards_do_not_share_a_flash(tmp_path: Path) -> None:
    image, flash = with_head(), tmp_path / "flash"
    with Device(QemuBoard(image, flash=flash)) as first:
        with pytest.raises(BoardError, match=f"another board uses the flash file {flash}: give each its own"):
            QemuBoard(image, flash=flash)
        saved = learn(first, image, 0, 1)
        first.save()
    with Device(QemuBoard(image, flash=flash)) as again:
        assert again.head_state() == saved


def test_a_simulated_device_does_not_write_over_what_another_has_saved(tmp_path: Path) -> None:
    image, flash = with_head(), tmp_path / "flash"
    with Device("sim", nano=image, flash=flash) as first, Device("sim", nano=image, flash=flash) as second:
        saved = learn(first, image, 0, 1)
        first.save()
        with pytest.raises(DeviceError, match="is no longer what this device left there"):
            second.save()
    with Device("sim", nano=image, flash=flash) as again:
        assert again.head_state() == saved


def test_the_simulated_device_is_the_board() -> None:
    image = with_head()
    inputs = random_inputs(image, 3, 7)
    with Device(QemuBoard(image)) as board, Device(Simulated(image)) as simulated:
        # A simulated device takes no updates.
        assert simulated.info == replace(board.info, update_room=0)
        for device in (board, simulated):
            learn(device, image, 4, 3)
        assert simulated.head_state() == board.head_state()
        for input in inputs:
            answers = [ask(device, "predict", input=input.tobytes()) for device in (board, simulated)]
            assert all(answer.pop("ticks") >= 0 for answer in answers)
            assert answers[0] == answers[1]
        for device in (board, simulated):
            answer = ask(device, "learn", input=inputs[0].tobytes(), label=4)
            assert answer["reason"] == "label 4 is not below the number of classes, 4"
            assert ask(device, "stats")["learned"] == 12


def test_a_simulated_device_starts_with_the_flash_of_another() -> None:
    image = with_head()
    first = Simulated(image)
    device = Device(first)
    saved = learn(device, image, 1, 2)
    ask(device, "save", replace=False)
    learn(device, image, 2, 2)
    assert Device(Simulated(image, first.device.flash())).head_state() == saved
    assert Device(Simulated(image)).head_state() == _native.Head(image).state()


def test_inputs_longer_than_a_frame_travel_in_parts() -> None:
    image = with_head()
    inputs = random_inputs(image, 5)
    with Device(Simulated(image, frame=64)) as parts, Device(Simulated(image)) as whole:
        assert parts.info.frame_length == 64 < parts.info.input_length
        for input in inputs:
            one, other = parts.predict(input), whole.predict(input)
            assert one.output.tobytes() == other.output.tobytes()
            assert one.logits.tobytes() == other.logits.tobytes()
        assert learn(parts, image, 3, 2) == learn(whole, image, 3, 2)
        assert len(parts.head_state()) > 64


def test_a_request_for_another_model_or_of_no_such_kind_is_refused() -> None:
    image = with_head()
    with Device(Simulated(image)) as device:
        answer = ask(device, "reset", model_id=device.info.model_id ^ 1, sequence=9)
        assert (answer["kind"], answer["failure"], answer["sequence"]) == ("refused", "Model", 9)
        assert answer["reason"] == f"the device runs another model, {device.info.model_id:08x}"
    for kind, fields, message in (
        ("frobnicate", {}, 'no request "frobnicate"'),
        ("train", {"first_epoch": 0}, 'has no field "epochs"'),
        ("train", {"first_epoch": 0, "epochs": 1, "label": 2}, '"train" has 2 fields, not these 3'),
        ("read", {"block": "lid", "offset": 0}, 'no block "lid"'),
    ):
        with pytest.raises(ValueError, match=message):
            _native.encode_request(kind, **fields)


def test_a_damaged_save_is_told_and_costs_no_more_than_itself(tmp_path: Path) -> None:
    image, flash = with_head(), tmp_path / "flash"
    inputs = random_inputs(image, 4)
    states = []
    with Device("sim", nano=image, flash=flash) as device:
        for label, input in enumerate(inputs):
            device.learn(input, label)
            device.train(2)
            if label % 2:
                device.save()
                states.append(device.head_state())
        assert (device.info.saved, device.info.lost_save) == (2, None)
    damaged = bytearray(flash.read_bytes())
    assert damaged.count(states[1][:64]) == 1
    damaged[damaged.index(states[1][:64]) + 9] ^= 4
    flash.write_bytes(damaged)
    (model := tmp_path / "model.nano").write_bytes(image)
    told = run("info", "sim", "--model", model, "--flash", flash)
    assert "Save 2, the latest, was cut short or is damaged; what can be loaded is save 1" in " ".join(
        told.split()
    )
    with Device("sim", nano=image, flash=flash) as device:
        assert device.info.restored
        assert (device.info.saved, device.info.lost_save) == (1, 2)
        assert device.head_state() == states[0]
        assert device.load() == 1
        assert device.save() == 3
        assert (device.info.saved, device.info.lost_save) == (3, None)
    assert "cut short" not in run("info", "sim", "--model", model, "--flash", flash)
