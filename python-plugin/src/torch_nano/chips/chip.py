"""The facts of a chip."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from ..arguments import shown
from ..errors import ChipError


@dataclass(frozen=True)
class Cache:
    """The cache between a chip's CPU and its flash."""

    #: Size in bytes.
    bytes: int
    #: Number of ways of a set; None if unknown.
    ways: int | None = None
    #: Bytes of a line; None if unknown.
    line: int | None = None


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
    cache: Cache
    #: Highest frequency of the CPU, in Hz.
    clock: int
    #: How a PC reaches the firmware: "usb-serial-jtag" or "uart".
    transport: str
    #: Whether the firmware builds for it.
    builds: bool
    #: Why the firmware does not build; "" if it does.
    reason: str = ""
    #: The costs of the cycle model, with their source; empty if they are not known.
    costs: Mapping[str, Any] = field(default_factory=dict)


@cache
def chips() -> Mapping[str, Chip]:
    """All chips by name, in the order of the table."""
    table = tomllib.loads(files(__package__).joinpath("chips.toml").read_text())
    reserved = table.pop("firmware")["reserved_ram"]
    return {
        name: Chip(
            name=name,
            cache=Cache(**facts.pop("cache")),
            model_ram=facts["ram"] - reserved,
            **facts,
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
