"""Finds the serial port of a board."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from esp_pylib.constants import ESPRESSIF_VID
from serial.tools import list_ports
from torch_nano.chips import Chip

from .errors import PortError

#: USB vendors of the serial converters on boards: Silicon Labs, WCH, FTDI, Prolific.
CONVERTERS = {0x10C4, 0x1A86, 0x0403, 0x067B}


@dataclass(frozen=True)
class Port:
    """A serial port that may be a board's."""

    #: Such as /dev/ttyACM0.
    device: str
    #: Whether it is a chip's own USB-Serial-JTAG; else a serial converter.
    jtag: bool


def find(chip: Chip, given: str | None) -> Port:
    """The port of a board with this chip.

    Args:
        given: the port that the user names; None: the only one that may be the board's.

    Raises:
        PortError: no port, or several, may be the board's.
    """
    present = {port.device: port for port in list_ports.comports()}
    if given is not None:
        # A link such as /dev/serial/by-id/...
        port = present.get(os.path.realpath(given), present.get(given))
        if port is None and "://" not in given and not Path(given).exists():
            there = ", ".join(present) or "none"
            raise PortError(f"there is no port {given}; the ports here: {there}")
        return Port(given, port is not None and port.vid == ESPRESSIF_VID)
    own = [Port(port.device, True) for port in present.values() if port.vid == ESPRESSIF_VID]
    converters = [Port(port.device, False) for port in present.values() if port.vid in CONVERTERS]
    # A board may have both sockets; the firmware answers on the chip's own.
    candidates = own or converters if chip.transport == "usb-serial-jtag" else converters
    if not candidates:
        others = f"; the ports here are no board's: {', '.join(present)}" if present else ""
        socket = (
            "the USB socket of the chip" if chip.transport == "usb-serial-jtag" else "the serial converter"
        )
        raise PortError(
            f"no board is connected{others}. Connect {socket} by a data cable, or name the port: --port PORT"
        )
    if len(candidates) > 1:
        raise PortError(
            f"several ports may be the board's: {', '.join(port.device for port in candidates)}. "
            "Disconnect the others, or name the port: --port PORT"
        )
    return candidates[0]
