"""Byte streams to devices: serial ports and sockets, and a device simulated in this process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Protocol

import serial

from ... import _native
from ...arguments import image_of, integer, path_of
from ...errors import ConnectionFailed, ConnectionLost, DeviceError, InputError
from ...files.reading import read_file
from ...files.writing import write_file
from .interrupts import deferred_interrupt

_CHUNK = 1 << 16
#: The largest request without an input, in bytes, such as training, which may take long. Most requests with
#: an input are longer, and take less time than starting a thread.
_SHORT = 48


class Stream(Protocol):
    """A byte stream to a device, such as :class:`torch_nano.device.QemuBoard`."""

    def read(self, size: int) -> bytes:
        """Waits for 1 to ``size`` bytes.

        Raises:
            TimeoutError: none came in time.
            OSError: the connection has ended.
        """

    def write(self, data: bytes) -> None:
        """Sends all of ``data``.

        Raises:
            TimeoutError, OSError: see :meth:`read`.
        """

    def close(self) -> None:
        """Ends the connection; may be called twice."""


class PortStream:
    """An open serial port or socket of pyserial.

    Args:
        port: the port, whose timeouts are set here.
        timeout: seconds that one `read` or `write` may wait.
    """

    def __init__(self, port: serial.SerialBase, timeout: float) -> None:
        self._port = port
        self._timeout = timeout
        self._owner, self._closed = os.getpid(), False
        #: Held while the port is used; :meth:`close` interrupts the holder.
        self._lock = Lock()
        port.write_timeout = timeout

    def read(self, size: int) -> bytes:
        """Waits for 1 to `size` bytes.

        Raises:
            TimeoutError: none came in time.
            OSError: the connection has ended, or was closed.
        """
        with self._lock:
            self._require_open()
            # pyserial waits for all requested bytes: wait for one, then take the others without waiting.
            self._port.timeout = self._timeout
            received: bytes = self._port.read(1)
            self._require_open()
            if not received:
                raise TimeoutError(f"no byte came within {self._timeout:g} s")
            self._port.timeout = 0
            return received + bytes(self._port.read(min(size, _CHUNK) - 1))

    def write(self, data: bytes) -> None:
        """Sends all of `data`.

        Raises:
            TimeoutError: the port did not take them in time.
            OSError: the connection has ended, or was closed.
        """
        with self._lock:
            self._require_open()
            try:
                self._port.write(data)
            except serial.SerialTimeoutException as error:
                raise TimeoutError(f"the port did not take the bytes within {self._timeout:g} s") from error

    def close(self) -> None:
        """Closes the port: a `read` or `write` in another thread raises OSError. May be called twice."""
        self._closed = True
        # pyserial leaves a socket open whose other end has gone.
        connection: socket.socket | None = getattr(self._port, "_socket", None)
        if os.getpid() != self._owner:
            # A forked process: the lock may be held by a thread of its parent.
            self._port.close()
            return
        if connection is not None:
            with suppress(OSError):  # the other end has gone
                connection.shutdown(socket.SHUT_RDWR)
        elif self._port.is_open:
            for name in ("cancel_read", "cancel_write"):  # not of all kinds of ports
                getattr(self._port, name, bool)()
        with self._lock:
            self._port.close()
            if connection is not None:
                connection.close()

    def _require_open(self) -> None:
        if self._closed:
            raise ConnectionLost("the port was closed")


class _Work:
    """A request to a simulated device: executed once, by its own thread or by the thread that waits for it.

    An exception from a signal handler may leave it unexecuted, for the next thread that waits for it.
    """

    def __init__(self, device: _native.SimulatedDevice, data: bytes) -> None:
        self._device, self._data = device, data
        self._doing = Lock()
        #: Held until it is executed or given up. Not an Event, which Ctrl-C can break.
        self._waited_for = Lock()
        self._waited_for.acquire()
        self._has_thread = self._is_done = False
        self.answered = b""
        self.error: BaseException | None = None

    def start(self) -> None:
        """Starts it in its own thread."""
        with deferred_interrupt():
            Thread(target=self._do, name="torch_nano simulated device", daemon=True).start()
            self._has_thread = True

    def finish(self) -> None:
        """Waits until it is executed or given up; :attr:`error` has the exception, if any."""
        if self._has_thread:
            with self._waited_for:
                pass
        else:
            self._do()

    def give_up(self) -> None:
        """Makes :meth:`finish` return."""
        with suppress(RuntimeError):  # it has ended
            self._waited_for.release()

    def _do(self) -> None:
        with self._doing:
            if self._is_done:
                return
            try:
                # May run twice after Ctrl-C: a request has a number, so the device executes it once.
                self.answered = self._device.exchange(self._data)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a panic of native code is not an Exception
                self.error = error
            self._is_done = True
            self.give_up()


class SimulatedBoard:
    """A simulated device in this process: the same session, head and flash as on a board, in memory.

    Args:
        image: the model, as bytes or checked.
        flash: a file for the device's saves, read if it exists; None: the saves are lost with the device.
        options: `ring` (places for samples) and `frame` (bytes of tensors per frame).

    Raises:
        InputError, FileFormatError: the image is invalid or damaged, an option is not a number above 0, or
            the device would be too large.
        ConnectionFailed: the file is not a flash, or cannot be read or made.

    >>> import torch, torch_nano as tn
    >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)), torch.randn(64, 4)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD())
    >>> board = tn.device.SimulatedBoard(nano.image)
    >>> tn.Device(board).info.classes
    3
    >>> board.cut_power()  # what was not saved is lost
    """

    def __init__(
        self, image: bytes | _native.Model, *, flash: str | Path | None = None, **options: int
    ) -> None:
        self._image = image_of(image)
        self._options = {name: integer(name, value, 1) for name, value in options.items()}
        self._file = None if flash is None else path_of("flash", flash)
        stored = None if self._file is None else _stored(self._file)
        # A file of another size is another device's.
        blank = self._started(None)
        if stored is not None and len(stored) != len(blank.flash()):
            raise ConnectionFailed(
                f"{self._file} has {len(stored)} bytes; a file for a simulated device's flash has "
                f"{len(blank.flash())}"
            )
        self._device = blank if stored is None else self._started(stored)
        self._stored = stored
        self._answered = b""
        #: The request that the device is executing.
        self._work: _Work | None = None
        self._open = True
        #: Held while the device is used, except by :meth:`close`.
        self._lock = Lock()

    def write(self, data: bytes) -> None:
        """Sends the device bytes, and waits until it has executed them. Ctrl-C ends only the waiting.

        Raises:
            ConnectionLost: the device was closed.
            DeviceError: its flash file cannot be written, or the simulation failed.
        """
        with self._lock:
            self._finish()
            self._work = _Work(self._device, data)
            self._require_open()  # after which `close` knows what to end
            # Python handles Ctrl-C while it waits for a thread, but not in native code.
            if len(data) <= _SHORT:
                self._work.start()
            self._finish()

    def read(self, size: int) -> bytes:
        """Returns 1 to `size` bytes of its answers.

        Raises:
            TimeoutError: there are none, and none will come.
            ConnectionLost: the device was closed.
            DeviceError: see :meth:`write`.
        """
        with self._lock:
            self._finish()
            if not self._answered:
                raise TimeoutError("the simulated device has nothing more to say")
            start, self._answered = self._answered[:size], self._answered[size:]
            return start

    def cut_power(self) -> None:
        """Restarts the device, with nothing but its flash.

        Raises:
            ConnectionLost, DeviceError: see :meth:`write`.
        """
        with self._lock:
            self._finish()
            self._device = self._started(self._device.flash())
            self._answered = b""

    def close(self) -> None:
        """Ends the device; a thread that waits for it gets a ConnectionLost. May be called twice."""
        self._open = False
        work = self._work
        if work is not None:
            work.give_up()

    def _finish(self) -> None:
        """Waits until the device has executed its request."""
        self._require_open()
        if self._work is None:
            return
        self._work.finish()
        self._require_open()
        work, self._work = self._work, None
        if work.error is not None:
            raise DeviceError(f"the simulated device failed: {work.error}") from work.error
        self._answered += work.answered
        self._store()

    def _store(self) -> None:
        if self._file is not None and (flash := self._device.flash()) != self._stored:
            if _stored(self._file) != self._stored:
                raise DeviceError(
                    f"the flash file {self._file} is no longer what this device left there: another device "
                    "uses it. Give each its own"
                )
            try:
                write_file(self._file, flash)
            except OSError as error:
                # Not an OSError, as the connection is still open.
                raise DeviceError(
                    f"the flash file {self._file} cannot be written ({error.strerror}): make that possible, "
                    "and ask again"
                ) from error
            self._stored = flash

    def _started(self, flash: bytes | None) -> _native.SimulatedDevice:
        try:
            return _native.SimulatedDevice(self._image, flash, **self._options)
        except _native.NanoError as error:
            raise InputError(
                f"no device can be simulated with {self._options or 'this model'}: {error}"
            ) from error

    def _require_open(self) -> None:
        if not self._open:
            raise ConnectionLost("the simulated device was closed")


def _stored(file: Path) -> bytes | None:
    """The contents of a flash file; None if it does not exist yet."""
    try:
        if file.exists():
            return read_file(file, ConnectionFailed)
    except OSError as error:
        raise ConnectionFailed(f"the flash file {file} cannot be read: {error.strerror}") from error
    if not file.parent.is_dir():
        raise ConnectionFailed(f"the flash file {file} cannot be made: {file.parent} is no folder")
    return None


def open_port(name: str, baudrate: int, timeout: float) -> PortStream:
    """Opens the serial port or socket:// URL `name` exclusively, and discards old bytes.

    Raises:
        OSError: it cannot be opened.
        ValueError: the URL is invalid.
    """
    # If another program uses the port, too, each gets half of the answers.
    options: dict[str, Any] = {"exclusive": True} if "://" not in name else {}
    port = serial.serial_for_url(name, baudrate=baudrate, timeout=timeout, **options)
    port.reset_input_buffer()
    return PortStream(port, timeout)
