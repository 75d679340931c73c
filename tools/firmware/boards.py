"""Boards whose power can be cut: one on a serial port, and the emulated one."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import serial
from esp_pylib.serial_reset import PIN_HIGH, hard_reset, set_dtr
from torch_nano import Device
from torch_nano.device import QemuBoard
from torch_nano.device.transport.streams import PortStream
from torch_nano.errors import ConnectionFailed, ConnectionLost, DeviceTimeout

from .errors import PortError
from .ports import Port

#: Bits per second of a UART; USB ignores it.
BAUDRATE = 115_200
#: Seconds of a reset, and then until the port is back: by the chip's own USB, by a converter. As in esptool.
_USB_RESET, _UART_RESET = (0.2, 0.2), (0.1, 0.0)
#: Seconds after a reset in which the port and the firmware must come back.
_STARTUP = 10.0


class Board(Protocol):
    """A board with a running firmware."""

    #: For the report.
    name: str
    #: What it counts: "cycles" or "instructions".
    ticks: str

    def connect(self) -> Device:
        """A client of the board, which ends the former one.

        Raises:
            torch_nano.errors.DeviceError: it does not answer, or runs another model.
        """

    def cut_power(self) -> None:
        """Restarts the board in the middle of what it does: only its flash is left.

        The present client's request then fails with a torch_nano.errors.DeviceError.

        Raises:
            PortError: the board cannot be restarted from here.
        """

    def close(self) -> None:
        """Ends the connection."""


class SerialBoard:
    """A board on a serial port, whose reset line cuts the power.

    Args:
        image: its model.
        timeout: seconds to wait for an answer.
    """

    ticks = "cycles"

    def __init__(self, port: Port, image: bytes, timeout: float = 10.0) -> None:
        self.name = port.device
        self._port, self._image, self._timeout = port, image, timeout
        self._serial: Any = None
        self._stream: PortStream | None = None

    def connect(self) -> Device:
        """As :meth:`Board.connect`. Tries for 10 s, as a reset takes the port away for a moment."""
        self.close()
        end = time.monotonic() + _STARTUP
        while True:
            try:
                return self._connected()
            except (OSError, ConnectionFailed, ConnectionLost, DeviceTimeout):
                self.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def cut_power(self) -> None:
        """As :meth:`Board.cut_power`, by the reset line."""
        try:
            if not isinstance(self._serial, serial.Serial):  # a socket, or not connected
                raise PortError(f"{self.name} has no reset line: connect the board by a serial port")
            hold, wait = _USB_RESET if self._port.jtag else _UART_RESET
            # Opening the port sets both lines, which the reset circuit takes for none.
            set_dtr(self._serial, PIN_HIGH)
            hard_reset(self._serial, hold_delay=hold, post_release_delay=wait)
        except OSError as error:
            raise PortError(f"{self.name} has no reset line ({error.strerror})") from error
        finally:
            self.close()

    def close(self) -> None:
        """As :meth:`Board.close`."""
        if self._stream is not None:
            with suppress(OSError):  # the port disappeared in a reset
                self._stream.close()
        self._stream = None

    def _connected(self) -> Device:
        options: dict[str, Any] = {} if "://" in self.name else {"exclusive": True}
        self._serial = serial.serial_for_url(self.name, BAUDRATE, timeout=self._timeout, **options)
        self._serial.reset_input_buffer()
        self._stream = PortStream(self._serial, self._timeout)
        return Device(self._stream, nano=self._image, timeout=self._timeout, progress=False)


class EmulatedBoard:
    """The emulated rv32imc board, which is killed to cut its power.

    Args:
        flash: the file that survives.
    """

    ticks = "instructions"

    def __init__(self, image: bytes, flash: Path) -> None:
        self.name = "QEMU rv32imc"
        self._image, self._flash = image, flash
        self._board: QemuBoard | None = None

    def connect(self) -> Device:
        """As :meth:`Board.connect`; starts the board if it is off."""
        if self._board is None:
            self._board = QemuBoard(self._image, flash=self._flash)
        return Device(self._board, nano=self._image, progress=False)

    def cut_power(self) -> None:
        """As :meth:`Board.cut_power`."""
        self.close()

    def close(self) -> None:
        """As :meth:`Board.close`: switches the board off."""
        if self._board is not None:
            self._board.close()
        self._board = None
