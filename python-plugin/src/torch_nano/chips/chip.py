"""The facts of a chip."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from .. import _native
from ..arguments import shown
from ..errors import ChipError


@dataclass(frozen=True)
class Cache:
    """The cache between a chip's CPU and its flash."""

    #: Size in bytes; None if unknown.
    bytes: int | None = None
    #: Number of ways of a set; None if unknown.
    ways: int | None = None
    #: Bytes of a line; None if unknown.
    line: int | None = None


@dataclass(frozen=True)
class Costs:
    """What the cycle model counts in addition to one cycle for each instruction, in cycles with at most one
    decimal.

    The cache before the flash replaces the oldest line of a set (FIFO) and loads one line at a time, word by
    word, without prefetch.
    """

    #: Where the numbers come from.
    source: str
    #: An instruction that reads the register which the instruction before it has loaded.
    load_use: float
    #: A branch that is taken.
    taken_branch: float
    #: A jump, call or return.
    jump: float
    #: A branch or jump to an instruction of four bytes that is not aligned to four.
    unaligned_target: float
    #: A multiplication that returns the high word.
    high_multiply: float
    #: A division or remainder.
    divide: float
    #: From a read that misses the cache to the request of its line.
    flash_request: float
    #: From the request to the line's first word.
    flash_first_word: float
    #: From a word to the next one.
    flash_next_word: float


@dataclass(frozen=True)
class Chip:
    """The facts of a chip, as ``chips.toml`` states them."""

    #: The name for :func:`chip`, for the firmware's feature and for esptool: "esp32c3".
    name: str
    #: The name in texts: "ESP32-C3".
    title: str
    #: Rust's name of the compilation target.
    target: str
    #: Bytes of RAM for a program: code in RAM, data and stack.
    ram: int
    #: Bytes of RAM for a model: its arena, head, ring buffer and frames.
    model_ram: int
    #: Bytes of flash of Espressif's development board.
    flash: int
    #: Frequency at which the flash is read, in Hz, on two lines.
    flash_clock: int
    #: Bytes of flash for the application: the firmware and the model's image.
    app_flash: int
    #: Bytes that an update of the model may have; 0 if the firmware takes none on this chip.
    update_room: int
    cache: Cache
    #: Highest frequency of the CPU, in Hz.
    clock: int
    #: How a PC reaches the firmware: "usb-serial-jtag" or "uart".
    transport: str
    #: The GPIO pins that this takes, in ascending order.
    pins: tuple[int, int]
    #: The name of the bootloader, among those of the crate espflash.
    bootloader: str
    #: Whether the firmware builds for it.
    builds: bool
    #: Why the firmware does not build; "" if it does.
    reason: str = ""
    #: The costs of the cycle model; None if they are not known.
    costs: Costs | None = None


@cache
def chips() -> Mapping[str, Chip]:
    """All chips by name, in the order of the table."""
    table = tomllib.loads(files(__package__).joinpath("chips.toml").read_text())
    firmware = table.pop("firmware")
    return {
        name: Chip(
            name=name,
            cache=Cache(**facts.pop("cache")),
            costs=Costs(**facts.pop("costs")) if "costs" in facts else None,
            pins=tuple(facts.pop("pins")),
            model_ram=facts["ram"] - firmware["reserved_ram"],
            app_flash=firmware["app_flash"],
            update_room=_native.update_room(firmware["update_flash"]) if facts.pop("mmu", None) else 0,
            **{"bootloader": name, **facts},
        )
        for name, facts in table.items()
    }


def chip(name: str) -> Chip:
    """The chip of a name: "esp32c3", also as "ESP32-C3".

    Raises:
        ChipError: there is no chip of this name.
    """
    known = chips()
    if not isinstance(name, str):
        raise ChipError(f"chip is {shown(name)}; expected one of {', '.join(known)}")
    found = known.get(name.lower().replace("-", ""))
    if found is None:
        close = get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ChipError(f"there is no chip {name!r}; the chips are {', '.join(known)}{hint}")
    return found
