"""Simulated devices on a socket and on a serial port, with faults of the link."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch_nano import _native

CHUNK = 4096


def _unchanged(data: bytes) -> bytes:
    return data


@dataclass
class Board:
    """A simulated device that a thread serves."""

    image: bytes
    device: _native.SimulatedDevice = field(init=False)
    #: Changes what was asked, and what is answered; called with each chunk of bytes.
    on_request: Callable[[bytes], bytes] = _unchanged
    on_answer: Callable[[bytes], bytes] = _unchanged
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.device = _native.SimulatedDevice(self.image)

    def cut_power(self) -> None:
        with self.lock:
            self.device = _native.SimulatedDevice(self.image, self.device.flash())

    def exchange(self, data: bytes) -> bytes:
        data = self.on_request(data)
        with self.lock:
            answer = self.device.exchange(data)
        return self.on_answer(answer)


class Unplugged(Exception):
    """Raised by a board's hook: the cable is pulled at this moment."""


@contextmanager
def server(serve: Callable[[socket.socket], None], port: int = 0) -> Iterator[str]:
    """The URL of something that takes one connection after the other, each until `serve` returns."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(0.05)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        serve(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@contextmanager
def socket_board(board: Board, port: int = 0) -> Iterator[str]:
    """The URL at which the board is served, one connection after the other."""
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.settimeout(0.05)
        while not ended.is_set():
            try:
                data = connection.recv(CHUNK)
                if not data:
                    break
                connection.sendall(board.exchange(data))
            except TimeoutError:
                continue
            except Unplugged:
                break

    with server(serve, port) as url:
        try:
            yield url
        finally:
            ended.set()


@contextmanager
def serial_board(board: Board) -> Iterator[str]:
    """The path of a pseudo terminal that serves the board."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                data = os.read(master, CHUNK)
            except BlockingIOError:
                ended.wait(0.001)
                continue
            answer = board.exchange(data)
            while answer and not ended.is_set():
                try:
                    answer = answer[os.write(master, answer) :]
                except BlockingIOError:
                    ended.wait(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        ended.set()
        thread.join()
        os.close(master)
        os.close(slave)
