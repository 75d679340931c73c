"""Faults of a connection: no port, a pulled cable, noise, silence, other devices."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from images import one_layer, with_head
from torch_nano import Device, _native
from torch_nano.device import SimulatedBoard
from torch_nano.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeviceError,
    DeviceRestarted,
    DeviceTimeout,
    FileFormatError,
    WrongModelError,
)

from .boards import Board, Unplugged, serial_board, socket_board

IMAGE = with_head()
INPUT = np.random.default_rng(0).integers(-128, 128, 216, np.int8)


@pytest.fixture
def board() -> Board:
    return Board(IMAGE)


@pytest.fixture
def url(board: Board) -> Iterator[str]:
    with socket_board(board) as url:
        yield url


def after(requests: int, act: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Calls `act` once, when so many chunks have passed."""
    passed = 0

    def hook(data: bytes) -> bytes:
        nonlocal passed
        passed += 1
        return act(data) if passed == requests + 1 else data

    return hook


def pull(_: bytes) -> bytes:
    raise Unplugged


def test_wrong_connections_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no port")
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for name, message in (
        ("/dev/ttyNANO7", r"cannot open '/dev/ttyNANO7': no such port; .*Expected a serial port such as"),
        ("simm", r"no such port; .*Did you mean 'sim'\?"),
        (str(text), r"notes\.txt"),
        (text, r"notes\.txt"),
        (f"socket://127.0.0.1:{free}", r"nobody answers there \(.*refused"),
        ("socket://127.0.0.1", "expected a serial port such as"),
        ("http://127.0.0.1:80", "expected a serial port such as"),
        ("sim", r"'sim' needs a model to run: Device\('sim', nano=\.\.\.\), or --model"),
        ("qemu", "'qemu' needs a model to run"),
    ):
        with pytest.raises(ConnectionFailed, match=message):
            Device(name, timeout=1)
    with pytest.raises(ConnectionFailed, match="a flash file is for 'sim' and 'qemu'"):
        Device("/dev/ttyNANO7", flash=tmp_path / "flash")
    with pytest.raises(DeviceError, match="has 7 bytes; a file for a simulated device's flash has 65536"):
        Device("sim", nano=IMAGE, flash=text)
    with pytest.raises(FileFormatError, match=r"the 6 bytes given are no model's image: not a \.nano image"):
        Device("sim", nano=b"GIF89a")


def test_a_port_that_another_program_has_open_is_refused(board: Board) -> None:
    with serial_board(board) as path:
        with Device(path) as first:
            with pytest.raises(ConnectionFailed, match="it is busy; close the other program"):
                Device(path)
            assert first.predict(INPUT).label >= 0
        with Device(path) as second:
            assert second.predict(INPUT).label >= 0


def test_a_port_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Board
) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with serial_board(board) as path:
        monkeypatch.setattr(os, "open", denied)
        with pytest.raises(ConnectionFailed, match="no permission; on Linux join the port's group"):
            Device(path)


def test_a_device_with_another_model_is_refused(url: str) -> None:
    other = one_layer()
    ids = (_native.Model(IMAGE).id, _native.Model(other).id)
    message = (
        f"the device runs 'test', model {ids[0]:08x}; expected 'test', model {ids[1]:08x}. Give its nano"
    )
    with pytest.raises(WrongModelError, match=message):
        Device(url, nano=other)
    with Device(url, nano=IMAGE) as device:
        assert device.info.model_id == ids[0]


def test_another_device_at_the_same_port_is_noticed(board: Board, url: str) -> None:
    with Device(url) as device:
        board.device = _native.SimulatedDevice(one_layer())
        board.on_answer = after(0, pull)
        with pytest.raises(WrongModelError, match="the device runs another model"):
            device.predict(INPUT)


def cobs(data: bytes) -> bytes:
    """A frame by Cheshire and Baker's definition, for fewer than 254 bytes without a zero."""
    return b"".join(bytes([len(part) + 1]) + part for part in data.split(b"\0")) + b"\0"


class Fake:
    """A stream that answers each write with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.waiting = b""

    def write(self, data: bytes) -> None:
        self.waiting += self.answer

    def read(self, size: int) -> bytes:
        start, self.waiting = self.waiting[:size], self.waiting[size:]
        return start

    def close(self) -> None:
        self.waiting = b""


def test_a_device_of_another_protocol_is_refused() -> None:
    # Header: protocol 1, sequence 0. Response 0: Refused. Failure 0: Protocol, with version 1.
    refusal = bytes([1, 0, 0, 0, 1])
    frame = cobs(refusal + _native.crc32(refusal).to_bytes(4, "little"))
    message = rf"the device speaks protocol 1, this package {_native.PROTOCOL}: build and flash the firmware"
    with pytest.raises(DeviceError, match=message):
        Device(Fake(frame))
    with pytest.raises(DeviceError, match=r"are no response of protocol \d+: damaged, or another"):
        Device(Fake(b"hello, world\r\n\0"))
    with pytest.raises(ConnectionLost, match="the stream has ended"):
        Device(Fake(b""))


def test_a_silent_device_times_out(board: Board, url: str) -> None:
    board.on_answer = lambda answer: b""
    start = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"the request 'begin' within 0\.[5-9] s \(a larger"):
        Device(url, timeout=0.5)
    assert time.monotonic() - start < 5


def test_a_request_repeated_after_a_timeout_is_executed_once(board: Board, url: str) -> None:
    with Device(url, timeout=0.5) as device:
        assert device.learn(INPUT, 1) == 1
        board.on_answer = lambda answer: b""
        with pytest.raises(DeviceTimeout, match="'learn'"):
            device.learn(INPUT, 2)
        board.on_answer = lambda answer: answer
        assert device.learn(INPUT, 2) == 2
        assert device.learn(INPUT, 2) == 3, "a third one is a sample of its own"
        stats = device.stats()
        assert (stats.learned, stats.repeated) == (3, 3)
        assert [entry.sent for entry in device.log if entry.request == "learn"] == [1, 3, 1, 1]


@pytest.mark.parametrize("where", ["request", "answer"])
def test_a_request_is_completed_when_its_cable_is_put_back(board: Board, url: str, where: str) -> None:
    with Device(url) as device:
        for sample in range(6):
            if where == "request":
                board.on_request = after(0, pull)
            else:
                board.on_answer = after(0, pull)
            assert device.learn(INPUT, sample % 4) == sample + 1
        board.on_request = after(0, pull)
        device.train(2)
        head = _native.Head(IMAGE)
        (features,) = _native.Model(IMAGE).run([np.stack([INPUT] * 6)])
        head.train(features, np.arange(6) % 4, 2)
        assert device.head_state() == head.state()
        assert device.stats().learned == 6


def test_a_cable_that_stays_out_is_a_lost_connection(board: Board) -> None:
    with socket_board(board) as url:
        device = Device(url, timeout=0.3)
        port = int(url.rpartition(":")[2])
        device.learn(INPUT, 0)
        # The device executes it, and its answer is lost.
        board.on_answer = after(0, pull)
    # Nobody listens now.
    with pytest.raises(
        ConnectionLost, match=r"was lost during the request .*did not come back within 0\.3 s"
    ):
        device.learn(INPUT, 1)
    with pytest.raises(ConnectionFailed, match="nobody answers there"):
        device.reconnect()
    with socket_board(board, port):
        assert not device.reconnect(), "it has not restarted"
        assert device.learn(INPUT, 1) == 2
        assert device.stats().learned == 2
        device.close()


def test_a_cable_that_is_put_back_in_time_loses_nothing(board: Board) -> None:
    with socket_board(board) as url:
        device = Device(url, timeout=20)
        port = int(url.rpartition(":")[2])
        board.on_answer = after(0, pull)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(device.learn(INPUT, 1)))
    thread.start()
    time.sleep(0.4)
    with socket_board(board, port):
        thread.join()
        assert results == [1]
        device.close()


def test_a_device_that_restarts_while_the_cable_is_out_says_so(board: Board, url: str) -> None:
    def restart(data: bytes) -> bytes:
        board.cut_power()
        raise Unplugged

    with Device(url) as device:
        device.learn(INPUT, 1)
        device.train(1)
        device.save()
        saved = device.head_state()
        device.train(3)
        board.on_request = after(0, restart)
        with pytest.raises(
            DeviceRestarted,
            match=r"'learn' was not executed.*the head that was saved last and no samples",
        ):
            device.learn(INPUT, 2)
        assert device.head_state() == saved
        assert device.learn(INPUT, 3) == 1
        board.on_request = after(0, restart)
        with pytest.raises(DeviceRestarted, match="'train' was not executed"):
            device.train(1)


@pytest.mark.parametrize("where", ["socket", "serial"])
def test_a_device_that_restarts_while_the_line_stays_up_says_so(board: Board, where: str) -> None:
    """Behind a USB bridge or a proxy: nothing is lost on the way, and no request runs on the wrong head."""

    def cut(data: bytes) -> bytes:
        board.cut_power()
        return data

    served = socket_board(board) if where == "socket" else serial_board(board)
    with served as line, Device(line) as device:
        device.learn(INPUT, 1)
        device.train(2)
        device.save()
        saved = device.head_state()
        device.train(1)
        for request in (
            lambda: device.fit(np.stack([INPUT] * 40), [1] * 40, epochs=2),
            lambda: device.train(1),
            lambda: device.predict(INPUT),
            device.head_state,
            lambda: device.add_class("new"),
            device.stats,
        ):
            board.on_request = after(0, cut)
            with pytest.raises(DeviceRestarted, match="was not executed: the device has restarted"):
                request()
            board.on_request = after(10**9, cut)
            assert device.head_state() == saved and device.stats().learned == 0


def test_another_client_on_the_same_device_is_noticed(board: Board, url: str) -> None:
    with Device(url) as device:
        device.learn(INPUT, 1)
        # What another client would send first.
        with board.lock:
            board.device.exchange(b"\0" + _native.encode_request("begin", session=1))
        with pytest.raises(DeviceRestarted, match="or another client has begun to talk to it"):
            device.learn(INPUT, 2)
        assert device.learn(INPUT, 2) == 2


def test_noise_on_the_line_costs_time_only(board: Board, url: str) -> None:
    rng = np.random.default_rng(1)
    damaged = 0

    def noisy(data: bytes) -> bytes:
        nonlocal damaged
        # Bits flip where they do not end a frame: what ends one too many is refused, and sent again.
        if len(data) > 2 and rng.random() < 0.3:
            damaged += 1
            place = int(rng.integers(len(data)))
            data = data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]
        return data

    with Device(url, timeout=1.5) as device:
        board.on_request = board.on_answer = noisy
        labels = rng.integers(0, 4, 25)
        for label in labels:
            while True:
                try:
                    device.learn(INPUT, int(label))
                    break
                except DeviceError:
                    # Three times in a row: the user asks again.
                    continue
        board.on_request = board.on_answer = lambda data: data
        assert damaged > 10
        assert device.stats().learned == len(labels)
        device.train(3)
        head = _native.Head(IMAGE)
        (features,) = _native.Model(IMAGE).run([np.stack([INPUT] * len(labels))])
        head.train(features, labels, 3)
        assert device.head_state() == head.state()


def test_long_inputs_are_completed_after_a_cable_is_pulled_between_their_parts() -> None:
    board = Board(IMAGE)
    board.device = _native.SimulatedDevice(IMAGE, frame=64)
    whole = Device(SimulatedBoard(IMAGE))
    with socket_board(board) as url, Device(url) as device:
        expected = whole.predict(INPUT)
        for lost in range(4):
            for hook in ("on_request", "on_answer"):
                setattr(board, hook, after(lost, pull))
                assert device.predict(INPUT).output.tobytes() == expected.output.tobytes()
                setattr(board, hook, lambda data: data)
        for lost in range(3, 5):
            board.on_answer = after(lost - 1, pull)
            assert device.learn(INPUT, 1) == lost - 2


def test_a_long_input_repeated_after_a_timeout_is_learnt_once() -> None:
    board = Board(IMAGE)
    board.device = _native.SimulatedDevice(IMAGE, frame=64)
    with socket_board(board) as url, Device(url, timeout=0.5) as device:
        other = INPUT.copy()
        other[0] ^= 1
        answered = 0

        def silent_at_last(answer: bytes) -> bytes:
            nonlocal answered
            answered += 1
            return answer if answered <= 3 else b""

        board.on_answer = silent_at_last
        with pytest.raises(DeviceTimeout, match="'learn'"):
            device.learn(INPUT, 1)
        board.on_answer = lambda answer: answer
        assert device.learn(INPUT, 1) == 1
        # The same last part, and yet another input.
        assert device.learn(other, 1) == 2
        assert device.stats().learned == 2


def test_a_simulated_device_without_power_restarts_with_what_it_saved() -> None:
    simulated = SimulatedBoard(IMAGE)
    device = Device(simulated)
    device.learn(INPUT, 1)
    device.train(4)
    device.save()
    saved = device.head_state()
    device.train(4)
    simulated.cut_power()
    assert Device(simulated).head_state() == saved
