"""Transports: connections by name, such as "/dev/ttyACM0", as streams that can be reopened."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from serial.tools import list_ports

from ... import _native
from ...arguments import shown
from ...errors import ConnectionFailed
from .qemu import QemuBoard
from .streams import SimulatedBoard, Stream, open_port

#: Number of times that a request is sent on a line that may lose bytes.
_ATTEMPTS = 3
_KINDS = "a serial port such as '/dev/ttyACM0' or 'COM3', 'socket://host:port', 'sim' or 'qemu'"


@dataclass(frozen=True)
class Transport:
    """The way to a device."""

    #: For messages.
    name: str
    #: Opens a stream; None if an open stream was given, which cannot be reopened.
    open: Callable[[], Stream] | None
    #: Number of times that a request is sent.
    attempts: int = 1
    #: Whether a lost connection may come back, as that of a cable.
    reopens: bool = False


def transport_of(
    connection: str | Path | Stream,
    image: _native.Model | None,
    *,
    timeout: float,
    baudrate: int,
    flash: Path | None,
) -> Transport:
    """The transport for a user's connection.

    Raises:
        ConnectionFailed: there is no such connection, or it needs an image.
    """
    if not isinstance(connection, str | Path):
        if not all(callable(getattr(connection, name, None)) for name in ("read", "write", "close")):
            raise ConnectionFailed(
                f"the connection is {shown(connection)}; expected {_KINDS}, or an open stream"
            )
        return Transport(type(connection).__name__, None)
    name = str(connection)
    if name in ("sim", "qemu"):
        if image is None:
            raise ConnectionFailed(
                f"{name!r} needs a model to run: Device({name!r}, nano=...), or --model on the command line"
            )
        if name == "sim":
            return Transport(name, lambda: SimulatedBoard(image, flash=flash))
        return Transport(name, lambda: QemuBoard(image.image, flash=flash, timeout=timeout))
    if flash is not None:
        raise ConnectionFailed(f"a flash file is for 'sim' and 'qemu'; {name!r} has a flash of its own")

    def port() -> Stream:
        try:
            return open_port(name, baudrate, timeout / _ATTEMPTS)
        except (OSError, ValueError) as error:
            raise ConnectionFailed(f"cannot open {name!r}: {_reason(name, error)}") from error

    return Transport(name, port, attempts=_ATTEMPTS, reopens=True)


def _reason(name: str, error: Exception) -> str:
    """The reason why a port cannot be opened, and what to do."""
    if "://" in name:
        parts = re.fullmatch(r"socket://.+:(\d+)", name)
        if parts is None:
            return f"expected {_KINDS}"
        if len(parts[1]) > 5 or not 0 < int(parts[1]) < 1 << 16:
            return f"the port is {parts[1]}; expected 1 to 65535"
        return f"nobody answers there ({error})"
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY):
        return "it is busy; close the other program that has it open (a serial monitor?)"
    if number == errno.EACCES:
        return "no permission; on Linux join the port's group (dialout or uucp) and log in again"
    if Path(name).exists() and number != errno.ENOENT:
        return f"{error}; expected {_KINDS}"
    ports = [port.device for port in list_ports.comports()]
    similar = get_close_matches(name, ["sim", "qemu", *ports], 1)
    guess = f" Did you mean {similar[0]!r}?" if similar else ""
    there = f"the serial ports here are {', '.join(ports)}" if ports else "there are no serial ports here"
    return f"no such port; {there}.{guess} Expected {_KINDS}"
