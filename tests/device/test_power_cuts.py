"""The emulated board loses its power at random moments of a training and of its save, on one flash file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from images import with_head
from torch_nano import _native
from torch_nano.device.client import Device
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.errors import BoardStopped

IMAGE = with_head()
SEED = 5
CUTS = 20
#: What is learnt and saved in turn: more than there are cuts, so that the last is never cut.
LESSONS = CUTS + 1
SAMPLES, EPOCHS = 8, 300
#: Moments are up to so many times as late as the slowest answer without a cut: some come after the save.
LATEST = 1.2


@dataclass(frozen=True)
class Saved:
    """What a save keeps."""

    state: bytes
    rejection: float


def lesson(number: int) -> npt.NDArray[np.int8]:
    model = _native.Model(IMAGE)
    width = int(np.prod(model.values[model.inputs[0]]["shape"]))
    return np.random.default_rng([SEED, number]).integers(-128, 128, (SAMPLES, width), np.int8)


def learn(device: Device, number: int) -> None:
    for index, input in enumerate(lesson(number)):
        device.learn(input, (number + index) % 4)


def rejection(number: int) -> float:
    return number / 32


def kept(device: Device) -> Saved:
    return Saved(device.head_state(), device.settings.rejection)


def uninterrupted() -> tuple[list[Saved], list[int], float]:
    """What a board that is never cut starts with and keeps with each save, the slices of each training, and
    the seconds of the slowest lesson.
    """
    with Device(QemuBoard(IMAGE)) as device:
        saves, slices, seconds = [kept(device)], [], []
        for number in range(LESSONS):
            learn(device, number)
            device.configure(rejection=rejection(number + 1))
            start = time.perf_counter()
            device.train(EPOCHS)
            device.save()
            seconds.append(time.perf_counter() - start)
            saves.append(kept(device))
            requests = [entry.request for entry in device.log]
            slices.append(sum(request in ("train", "continue") for request in requests) - sum(slices))
    return saves, slices, max(seconds)


def cut_power(board: QemuBoard) -> list[str]:
    """Kills the board: nothing is flushed, nothing is closed. The kinds of the answers that it had sent; of a
    training in slices only the last one counts as "trained".
    """
    board._process.kill()
    sent = b""
    while True:
        try:
            sent += board.read(4096)
        except BoardStopped:
            # What comes after the last end byte is an answer that was cut.
            answers = [_native.decode_response(frame) for frame in sent.split(b"\0")[:-1] if frame]
            return [str(answer["kind"]) for answer in answers if not answer.get("left")]


def start(board: QemuBoard, saves: list[Saved], allowed: list[Saved], place: str) -> tuple[Device, int]:
    """Checks the head that the board starts with; pushes the samples of its lessons; returns their number."""
    device = Device(board)
    found = kept(device)
    assert found in allowed, f"{place}: it starts with {found}"
    done = saves.index(found)
    assert device.info.restored == (done > 0), place
    for number in range(done):
        learn(device, number)
    return device, done


def test_a_power_cut_at_any_moment_of_a_training_and_its_save(tmp_path: Path) -> None:
    saves, slices, seconds = uninterrupted()
    assert len({save.state for save in saves}) == len(saves), "a lesson teaches nothing"
    random = np.random.default_rng(SEED)
    # One in each of as many parts of the time.
    moments = random.permutation((np.arange(CUTS) + random.random(CUTS)) / CUTS) * LATEST * seconds
    flash = tmp_path / "flash"
    allowed, place = saves[:1], "before the first cut"
    for cut, moment in enumerate(moments):
        board = QemuBoard(IMAGE, flash=flash)
        device, done = start(board, saves, allowed, place)
        learn(device, done)
        device.configure(rejection=rejection(done + 1), save_interval=cut % 2)
        board.write(_native.encode_request("train", first_epoch=0, epochs=EPOCHS))
        board.write(_native.encode_request("continue") * (slices[done] - 1))
        if cut % 2 == 0:
            board.write(_native.encode_request("save", replace=False))
        time.sleep(moment)
        answers = cut_power(board)
        # What was answered was done.
        answered = ("saved", "trained")[cut % 2] in answers
        allowed = saves[done + answered : done + 2]
        place = f"seed {SEED}, cut {cut}, in lesson {done} after {moment:.3f} s, which had answered {answers}"
    with QemuBoard(IMAGE, flash=flash) as board:
        device, done = start(board, saves, allowed, place)
        for number in range(done, LESSONS):
            learn(device, number)
            device.configure(rejection=rejection(number + 1))
            device.train(EPOCHS)
            device.save()
            assert kept(device) == saves[number + 1], f"seed {SEED}, lesson {number} after the cuts"
