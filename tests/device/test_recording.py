"""Records of a device's steps, and their replay with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import one_layer, with_head
from torch_nano import Device, _native, heads
from torch_nano.device import ReplayDifference, SimulatedBoard, record, replay
from torch_nano.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeviceError,
    DeviceRestarted,
    InputError,
    RecordError,
)

from .boards import Board, Unplugged, socket_board
from .test_accidents import after, pull

IMAGES = {
    "sgd": with_head(),
    "guarded": with_head(settings=heads.SGD(0.05, guard=3)),
    "lda": with_head(settings=heads.LDA(capacity=6)),
    "prototype": with_head(settings=heads.Prototype(capacity=6)),
    "fading sgd": with_head(settings=heads.SGD(0.05, half_life=3)),
    "fading lda": with_head(settings=heads.LDA(capacity=6, half_life=2)),
    "fading prototype": with_head(settings=heads.Prototype(capacity=6, half_life=2)),
}
RNG = np.random.default_rng(0)
INPUTS = RNG.integers(-128, 128, (60, 216), np.int8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.record"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def session(device: Device, trainer: str, seed: int, steps: int) -> int:
    """Takes random steps; returns the number of refused ones."""
    rng = np.random.default_rng(seed)
    refused = 0
    acts: list[Callable[[], object]] = [
        lambda: device.learn(INPUTS[rng.integers(60)], int(rng.integers(device.info.classes))),
        lambda: device.learn(INPUTS[rng.integers(60)], int(rng.integers(device.info.classes))),
        lambda: device.train(int(rng.integers(1, 4))),
        device.commit,
        device.undo,
        lambda: device.add_class(f"class {rng.integers(6)}"),
        lambda: device.forget(int(rng.integers(device.info.classes))),
        device.save,
        device.load,
        lambda: device.write_head(_native.Head(IMAGES[trainer]).state()),
        device.reset,
    ]
    for _ in range(steps):
        try:
            acts[rng.choice(len(acts), p=[0.3, 0.3, 0.1, 0.06, 0.08, 0.03, 0.03, 0.03, 0.03, 0.02, 0.02])]()
        except DeviceError:
            refused += 1
    return refused


@pytest.mark.parametrize("trainer", IMAGES)
@pytest.mark.parametrize("ring", [7, 1024])
def test_random_sessions_repeat_to_the_bit(trainer: str, ring: int, tmp_path: Path) -> None:
    image = IMAGES[trainer]
    for seed in range(4):
        path = tmp_path / f"{seed}"
        device = Device(SimulatedBoard(image, ring=ring))
        device.learn(INPUTS[0], 0)
        device.reset()
        with record(device, path, check_every=1 + seed) as recording:
            refused = session(device, trainer, seed, 120)
        result = replay(path, image)
        assert 0 < refused < 60, f"seed {seed}"
        assert result.head.state() == device.head_state(), f"seed {seed}"
        assert result.steps == recording.steps > 80
        assert result.checks > 0 and not result.outcome_unknown


@pytest.mark.parametrize("trainer", ["sgd", "lda", "prototype"])
def test_a_step_that_was_tampered_with_is_named(trainer: str, path: Path) -> None:
    image = IMAGES[trainer]
    device = Device("sim", nano=image)
    with record(device, path):
        for sample in range(12):
            device.learn(INPUTS[sample], sample % 4)
        for _ in range(2):
            device.train(2) if trainer == "sgd" else device.commit()
    entries = lines(path)
    steps = [index for index, entry in enumerate(entries) if "request" in entry]
    tampered = [dict(entry) for entry in entries]
    tampered[steps[4]]["target"] = (entries[steps[4]]["target"] + 1) % 4
    rewrite(path, tampered)
    # A head that trains on what its ring keeps does not change before.
    first = 13 if trainer == "sgd" else 5
    with pytest.raises(ReplayDifference, match=rf"after step {first} \(.*the heads differ: CRC-32") as caught:
        replay(path, image)
    assert (caught.value.step, caught.value.last_equal_step) == (first, first - 1)
    assert len(caught.value.head) == len(device.head_state())
    removed = entries[: steps[6]] + entries[steps[7] :]
    rewrite(path, removed)
    with pytest.raises(RecordError, match=r"line 14: step is 8; expected 7"):
        replay(path, image)
    wrong = [dict(entry) for entry in entries]
    wrong[steps[3]]["target"] = 77
    rewrite(path, wrong)
    if trainer != "sgd":
        with pytest.raises(ReplayDifference, match=r"executed step 4 \(learn, target 77\), which"):
            replay(path, image)
    rewrite(path, entries)
    assert replay(path, image).head.state() == device.head_state()


def test_a_device_that_was_tampered_with_is_found(path: Path) -> None:
    image = IMAGES["sgd"]
    device = Device(SimulatedBoard(image))
    with record(device, path):
        for sample in range(8):
            device.learn(INPUTS[sample], sample % 4)
        device.train(1)
        # The record does not contain this.
        device._link.ask("train", "trained", first_epoch=0, epochs=1)
        device.train(1)
        device.train(1)
    with pytest.raises(
        ReplayDifference,
        match=r"after step 10 \(train, epochs 1, first_epoch 0\) the heads differ.*after step 9",
    ):
        replay(path, image)


def test_samples_that_the_device_lost_are_found(path: Path) -> None:
    device = Device(SimulatedBoard(IMAGES["sgd"]))
    with record(device, path):
        device.learn(INPUTS[0], 0)
        device._link.ask("reset", "done")
        device.learn(INPUTS[1], 1)
    with pytest.raises(ReplayDifference, match=r"after step 2 .* the device kept 1 samples, its twin 2"):
        replay(path, IMAGES["sgd"])


def test_every_prefix_of_a_record_can_be_read(path: Path, tmp_path: Path) -> None:
    """A PC that crashes leaves a prefix: nothing before it is lost."""
    image = IMAGES["sgd"]
    device = Device("sim", nano=image)
    states = [device.head_state()]
    with record(device, path):
        for sample in range(4):
            device.learn(INPUTS[sample], sample)
            states.append(device.head_state())
        for _ in range(3):
            device.train(1)
            states.append(device.head_state())
    data = path.read_bytes()
    cut = tmp_path / "cut"
    whole = len(data.split(b"\n", 1)[0]) + 1
    for length in [*range(whole, len(data), 37), len(data)]:
        cut.write_bytes(data[:length])
        result = replay(cut, image)
        unknown = data[:length].count(b"\n") % 2 == 0
        assert result.outcome_unknown == unknown
        assert result.cut == (not cut.read_bytes().endswith(b"\n"))
        assert result.head.state() == states[result.steps - unknown]


def test_a_request_whose_answer_was_lost_is_counted_once(path: Path) -> None:
    image = IMAGES["sgd"]
    board = Board(image)
    with socket_board(board) as url:
        device = Device(url, timeout=0.3)
        port = int(url.rpartition(":")[2])
        recording = record(device, path)
        device.learn(INPUTS[0], 0)
        board.on_answer = after(0, pull)
    with pytest.raises(ConnectionLost):
        device.learn(INPUTS[1], 1)
    with pytest.raises(ConnectionFailed):
        device.reconnect()
    with socket_board(board, port):
        device.reconnect()
        # Repeated; the answer is the one that was lost.
        assert device.learn(INPUTS[1], 1) == 2
        device.train(2)
        recording.close()
        assert replay(path, image).head.state() == device.head_state()
        device.close()


def test_noise_leaves_open_whether_a_step_was_made(path: Path) -> None:
    image = IMAGES["sgd"]
    board = Board(image)
    with socket_board(board) as url, Device(url) as device, record(device, path):
        for sample in range(3):
            # Executed; its answers arrive damaged.
            board.on_answer = lambda answer: bytes([answer[0], answer[1] ^ 1 or 2]) + answer[2:]
            with pytest.raises(DeviceError, match="damaged"):
                device.learn(INPUTS[sample], sample)
            board.on_answer = lambda answer: answer
            if sample != 1:
                assert device.learn(INPUTS[sample], sample) == sample + 1
        device.train(2)
        state = device.head_state()
        assert device.stats().learned == 3
    assert replay(path, image).head.state() == state


@pytest.mark.parametrize(
    "seen_by",
    [
        lambda device: device.learn(INPUTS[1], 1),
        lambda device: device.train(1),
        lambda device: device.predict(INPUTS[1]),
        lambda device: device.save(),
        lambda device: device.head_state(),
        lambda device: device.stats(),
        lambda device: device.configure(rejection=0.5),
    ],
)
@pytest.mark.parametrize("line", ["pulled", "up"])
def test_a_restart_is_recorded(path: Path, seen_by: Callable[[Device], object], line: str) -> None:
    """Whichever request sees it, and whether the connection was lost or not."""
    image = IMAGES["sgd"]
    board = Board(image)

    def restart(data: bytes) -> bytes:
        board.cut_power()
        if line == "pulled":
            raise Unplugged
        return data

    with socket_board(board) as url, Device(url) as device, record(device, path) as recording:
        device.learn(INPUTS[0], 0)
        device.train(1)
        device.save()
        device.train(1)
        board.on_request = after(0, restart)
        with pytest.raises(DeviceRestarted):
            seen_by(device)
        with pytest.raises(RecordError, match="what undo would take back is not in the record"):
            device.undo()
        device.learn(INPUTS[2], 2)
        device.train(3)
        state = device.head_state()
    assert sum("restarted" in entry for entry in lines(path)) == 1
    result = replay(path, image)
    assert result.head.state() == state and not result.outcome_unknown
    assert result.steps == recording.steps


def test_a_restart_at_reconnect_or_at_the_end_is_recorded(path: Path, tmp_path: Path) -> None:
    image = IMAGES["lda"]
    device = Device("sim", nano=image, flash=tmp_path / "flash")
    with record(device, path):
        device.learn(INPUTS[0], 0)
        device.save()
        device.learn(INPUTS[1], 1)
        assert device.reconnect()
        device.learn(INPUTS[2], 2)
        middle = device.head_state()
        assert device.reconnect()
    result = replay(path, image)
    assert result.head.state() == device.head_state() != middle
    assert sum("restarted" in entry for entry in lines(path)) == 2


def test_samples_of_another_client_are_no_part_of_a_record(path: Path) -> None:
    image = IMAGES["sgd"]
    board = SimulatedBoard(image)
    device = Device(board)
    with record(device, path):
        device.learn(INPUTS[0], 0)
        Device(board).learn(INPUTS[1], 1)
        with pytest.raises(DeviceRestarted):
            device.learn(INPUTS[2], 2)
        for act in (lambda: device.learn(INPUTS[2], 2), lambda: device.train(1), device.undo):
            with pytest.raises(RecordError, match=r"samples that the record has not: device\.reset\(\)"):
                act()
        device.reset()
        with pytest.raises(RecordError, match="what undo would take back is not in the record"):
            device.undo()
        device.learn(INPUTS[2], 2)
        device.train(2)
        state = device.head_state()
    assert replay(path, image).head.state() == state


def test_refused_steps_cannot_be_undone(path: Path) -> None:
    device = Device("sim", nano=IMAGES["lda"])
    device.learn(INPUTS[0], 0)
    with record(device, path):
        with pytest.raises(DeviceError, match="cannot do this"):
            device.train(1)
        with pytest.raises(RecordError, match="what undo would take back is not in the record"):
            device.undo()
        device.learn(INPUTS[1], 1)
        device.undo()
    assert replay(path, IMAGES["lda"]).head.state() == device.head_state()


def test_files_that_are_not_records_are_refused(path: Path, tmp_path: Path) -> None:
    image = IMAGES["sgd"]
    with pytest.raises(RecordError, match="has no head to record"):
        record(Device("sim", nano=one_layer()), path)
    device = Device("sim", nano=image)
    with pytest.raises(InputError, match="check_every is 0; expected a whole number, 1 to"):
        record(device, path, check_every=0)
    device.learn(INPUTS[0], 0)
    with pytest.raises(RecordError, match="the device may keep samples from before"):
        record(device, path)
    assert not path.exists()
    device.reset()
    with record(device, path):
        with pytest.raises(RecordError, match="what undo would take back is not in the record"):
            device.undo()
        device.learn(INPUTS[0], 0)
    assert device.observers == []
    device.reset()
    with pytest.raises(RecordError, match="is there already; a record is never overwritten"):
        record(device, path)
    with pytest.raises(RecordError, match=r"was made with 'test', model .*; given is 'test'"):
        replay(path, IMAGES["lda"])
    entries = lines(path)
    rewrite(path, [{**entries[0], "torch_nano_record": 99}])
    with pytest.raises(RecordError, match="is of version 99; this package reads 4"):
        replay(path, image)
    for text in ("", "{}\n", '{"a": 1}\n', "no line's end"):
        path.write_text(text)
        with pytest.raises(RecordError, match="is no record of a device"):
            replay(path, image)
    rewrite(path, entries)
    path.write_text(path.read_text() + "noise\n")
    with pytest.raises(RecordError, match="line 4: it is no JSON"):
        replay(path, image)
    with pytest.raises(RecordError, match="missing cannot be read: No such file"):
        replay(tmp_path / "missing", image)
    with pytest.raises(RecordError, match="cannot be made: No such file"):
        record(device, tmp_path / "missing" / "device.record")
