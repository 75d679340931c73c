"""Writes a flash image to a board: by probe-rs, espflash or esptool, whichever is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch_nano.chips import Chip

from .errors import ProgrammerMissing
from .image import esptool
from .ports import Port

Command = tuple[str | Path, ...]


@dataclass(frozen=True)
class Programmer:
    """A program that writes flash images."""

    #: The commands that write the image to address 0 of the flash and restart the chip.
    commands: Callable[[Chip, Port, Path], tuple[Command, ...]]
    #: How to install it.
    install: str
    #: Whether it needs the chip's own USB-Serial-JTAG.
    needs_jtag: bool = False


def _probe_rs(chip: Chip, port: Port, image: Path) -> tuple[Command, ...]:
    options = ("--chip", chip.name)
    return (
        ("probe-rs", "download", *options, "--binary-format", "bin", "--base-address", "0x0", image),
        ("probe-rs", "reset", *options),
    )


def _espflash(chip: Chip, port: Port, image: Path) -> tuple[Command, ...]:
    return (("espflash", "write-bin", "--chip", chip.name, "--port", port.device, "0x0", image),)


def _esptool(chip: Chip, port: Port, image: Path) -> tuple[Command, ...]:
    return ((*esptool(chip), "--port", port.device, "write-flash", "0x0", image),)


#: In the order of preference. esptool is installed with this project.
PROGRAMMERS: Mapping[str, Programmer] = {
    "probe-rs": Programmer(_probe_rs, "cargo install probe-rs-tools --locked", needs_jtag=True),
    "espflash": Programmer(_espflash, "cargo install espflash --locked"),
    "esptool": Programmer(_esptool, "just setup"),
}


def choose(name: str | None, port: Port) -> Programmer:
    """The programmer of a name, or the first that is installed and can use the port.

    Raises:
        ProgrammerMissing: there is no such programmer, it is not installed, or it cannot use the port.
    """
    if name is None:
        usable = [
            programmer
            for known, programmer in PROGRAMMERS.items()
            if _installed(known) and (port.jtag or not programmer.needs_jtag)
        ]
        return usable[0]
    programmer = PROGRAMMERS.get(name)
    if programmer is None:
        raise ProgrammerMissing(f"there is no programmer {name!r}; expected one of {', '.join(PROGRAMMERS)}")
    if not _installed(name):
        raise ProgrammerMissing(f"{name} is not installed. Install it: {programmer.install}")
    if programmer.needs_jtag and not port.jtag:
        raise ProgrammerMissing(
            f"{name} needs the chip's own USB-Serial-JTAG, and {port.device} is a serial converter: "
            "connect the chip's USB socket, or take espflash or esptool"
        )
    return programmer


def _installed(name: str) -> bool:
    return name == "esptool" or shutil.which(name) is not None
