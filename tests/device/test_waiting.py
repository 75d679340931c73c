"""A client's timeouts, and what other threads can do while it waits."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from images import one_layer, with_head
from torch_nano import Device, _native
from torch_nano.device import QemuBoard, SimulatedBoard, record, replay
from torch_nano.errors import BoardStopped, ConnectionFailed, ConnectionLost, DeviceError, DeviceTimeout

from .boards import Board, serial_board, server, socket_board

IMAGE = with_head()
INPUTS = np.random.default_rng(0).integers(-128, 128, (50, 216), np.int8)
LABELS = np.arange(50) % 4
#: Epochs that take seconds.
LONG = 200_000


def busy() -> Device:
    """A device with samples to train on."""
    device = Device(SimulatedBoard(IMAGE))
    for input, label in zip(INPUTS, LABELS, strict=True):
        device.learn(input, int(label))
    return device


def test_other_threads_run_while_a_simulated_device_trains() -> None:
    device, ended = busy(), threading.Event()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while not ended.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    device.train(LONG // 10)
    seconds = time.monotonic() - start
    ended.set()
    thread.join()
    # Far fewer than one in a millisecond, for computers with other work.
    assert ticks > seconds * 20


def closing(connection: socket.socket) -> None:
    """Like a forwarded port to no device."""


def printing(connection: socket.socket) -> None:
    """As a program that logs to its port, slowly."""
    while True:
        connection.sendall(b"all is well\r\n")
        time.sleep(0.01)


def flooding(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 100_000)


def http(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def answering_others(connection: socket.socket) -> None:
    """As the device of a client that has another one's answers on its line."""
    board = _native.SimulatedDevice(IMAGE)
    answer = board.exchange(b"\0" + _native.encode_request("stats", sequence=60_000))
    while True:
        connection.sendall(answer)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("serve", "kind", "message"),
    [
        (closing, ConnectionLost, r"again and again for 0\.5 s\. Is a device there"),
        # Whether its text or its end is seen last depends on how fast it is.
        (http, (ConnectionLost, DeviceTimeout), "again and again for|something else came, but no answer"),
        (printing, DeviceTimeout, "something else came, but no answer"),
        (answering_others, DeviceTimeout, "something else came, but no answer"),
        (flooding, DeviceError, "bytes came without the end of a frame: is something else than a device"),
    ],
)
def test_a_port_without_a_device_is_not_waited_for(
    serve: Callable[[socket.socket], None],
    kind: type[DeviceError] | tuple[type[DeviceError], ...],
    message: str,
) -> None:
    with server(serve) as url:
        start = time.monotonic()
        with pytest.raises(kind, match=message):
            Device(url, timeout=0.5)
        # Twice the time, once more for the latest attempt, and what a busy computer takes.
        assert time.monotonic() - start < 5


def test_a_device_that_begins_to_print_is_noticed() -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, timeout=5) as device:
        board.on_answer = lambda answer: b"x" * (1 << 17)
        with pytest.raises(DeviceError, match=r"more than 16384 bytes came without the end of a frame"):
            device.predict(INPUTS[0])
        board.on_answer = lambda answer: answer
        assert device.predict(INPUTS[0]).label >= 0


def test_a_device_that_hangs_can_be_started_anew() -> None:
    with Device("qemu", nano=IMAGE, timeout=1) as device:
        for input, label in zip(INPUTS, LABELS, strict=True):
            device.learn(input, int(label))
        board = device._link.stream
        assert isinstance(board, QemuBoard)
        os.kill(board._process.pid, signal.SIGSTOP)
        with pytest.raises(DeviceTimeout, match=r"may still work on it: ask the same again to wait"):
            device.train(10)
        assert device.reconnect()
        assert device.stats().learned == 0


@pytest.mark.parametrize("connection", ["sim", "qemu", "socket", "serial", "stream"])
def test_a_closed_device_stays_closed(connection: str, tmp_path: Path) -> None:
    board = Board(IMAGE)
    with ExitStack() as stack:
        made: str | SimulatedBoard = connection
        if connection == "socket":
            made = stack.enter_context(socket_board(board))
        elif connection == "serial":
            made = stack.enter_context(serial_board(board))
        elif connection == "stream":
            made = SimulatedBoard(IMAGE)
        with Device(made, nano=IMAGE) as device:
            recording = record(device, tmp_path / "device.record")
            device.learn(INPUTS[0], 0)
            state = device.head_state()
        for act in (
            lambda: device.predict(INPUTS[0]),
            lambda: device.learn(INPUTS[0], 1),
            lambda: device.train(1),
            device.stats,
            device.head_state,
            device.reconnect,
        ):
            with pytest.raises(ConnectionLost, match="this Device was closed; make a new one"):
                act()
        device.close()
        recording.close()
        assert replay(tmp_path / "device.record", IMAGE).head.state() == state
        if connection in ("socket", "serial"):
            # Nothing holds the port.
            with Device(made) as second:
                assert second.predict(INPUTS[0]).label >= 0


def test_a_model_without_a_head_uses_the_names_of_the_client() -> None:
    image = one_layer()
    with Device("sim", nano=image) as device:
        assert device.labels == tuple(_native.Model(image).labels)


def test_streams_that_end_are_said_to() -> None:
    simulated = SimulatedBoard(IMAGE)
    device = Device(simulated)
    with pytest.raises(ConnectionFailed, match="SimulatedBoard was given open"):
        device.reconnect()
    device.close()
    device.close()
    with Device("qemu", nano=IMAGE) as emulated:
        emulated._link.stream._process.kill()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionLost, match="was lost during the request 'predict'") as caught:
            emulated.predict(INPUTS[0])
        assert isinstance(caught.value.__cause__, BoardStopped)
        assert emulated.reconnect()
        assert emulated.predict(INPUTS[0]).label >= 0
