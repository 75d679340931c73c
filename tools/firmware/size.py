"""Breaks down the flash that a firmware takes, by crate.

A symbol counts for the crate that its mangled name begins with: a function that was inlined counts for its
caller. Texts, jump tables and constants without a name are `constants`. The model is apart.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import NamedTuple

#: Bits of a section's flags (ELF specification, sh_flags), and the types of sections (sh_type).
ALLOCATED = 2
SYMBOLS, WITHOUT_BYTES = 2, 8
#: esp-hal's sections that only keep the addresses of flash and RAM apart.
PLACEHOLDER = re.compile(r"\.\w+_dummy$")


class Sizes(NamedTuple):
    """What a firmware takes of the flash."""

    #: Bytes of each section that is loaded from the flash.
    sections: dict[str, int]
    #: Bytes of each crate's functions and constants, the largest first; the model's are not counted.
    crates: dict[str, int]
    #: Bytes of the model's image.
    model: int
    #: Bytes of functions that format text: those of core::fmt, and implementations of its traits.
    formatting: int

    @property
    def program(self) -> int:
        """Bytes without the model."""
        return sum(self.sections.values()) - self.model

    def __str__(self) -> str:
        rows = [*self.sections.items(), ("", 0), *self.crates.items()]
        lines = [f"{size:8,} {name}" if name else "" for name, size in rows]
        return "\n".join(
            [
                *lines,
                "",
                f"{self.program:8,} program",
                f"{self.model:8,} model",
                f"{self.formatting:8,} core::fmt",
            ]
        )


def firmware_size(program: bytes, model: bytes) -> Sizes:
    """The sizes of a little-endian 32-bit ELF program that carries a model's image.

    Raises:
        ValueError: it is not such a program, or does not carry the image.
    """
    if program[:6] != b"\x7fELF\x01\x01":
        raise ValueError(f"not a little-endian 32-bit ELF program: it starts with {program[:6].hex()}")
    if model not in program:
        raise ValueError(f"the program does not carry this model of {len(model)} bytes")
    (table,) = struct.unpack_from("<I", program, 32)
    size, count, names_index = struct.unpack_from("<3H", program, 46)
    places = range(table, table + size * count, size)
    sections = [_Section(*struct.unpack_from("<10I", program, place)) for place in places]
    names = sections[names_index]
    loaded = {
        section.address: (_text(program, names.offset + section.name), section.size)
        for section in sections
        if section.flags & ALLOCATED and section.kind != WITHOUT_BYTES and section.size
    }
    loaded = {place: found for place, found in loaded.items() if not PLACEHOLDER.match(found[0])}

    # Where the model is in memory, as its symbol belongs to a crate.
    offset = program.index(model)
    carrier = next(
        section for section in sections if 0 <= offset - section.offset < section.size and section.address
    )
    model_address = carrier.address + offset - carrier.offset

    formatting = 0
    crates: Counter[str] = Counter()
    seen: set[int] = set()
    for section in sections:
        if section.kind != SYMBOLS:
            continue
        strings = sections[section.link].offset
        for place in range(section.offset, section.offset + section.size, 16):
            name, address, length, info = struct.unpack_from("<IIIB", program, place)
            # Only functions and objects (symbol types 1 and 2); of several names of one address, the first.
            inside = any(start <= address < start + size for start, (_, size) in loaded.items())
            if info & 15 in (1, 2) and length and inside and address not in seen:
                seen.add(address)
                symbol = _text(program, strings + name)
                carried = len(model) if address <= model_address < address + length else 0
                crates[crate_of(symbol)] += length - carried
                formatting += length if re.search(r"4core3fmt|core\.\.fmt\.\.", symbol) else 0
    found = {name: size for name, size in loaded.values()}
    crates["not named"] = sum(found.values()) - len(model) - crates.total()
    return Sizes(found, dict(crates.most_common()), len(model), formatting)


def crate_of(symbol: str) -> str:
    """The crate that a mangled name begins with; `constants` for the compiler's own names, else `other`."""
    # v0: a crate is Cs, a hash, the length and the name; the first that is named is the outermost.
    if symbol.startswith("_R"):
        found = re.search(r"Cs[0-9A-Za-z]*_(\d+)", symbol)
        return symbol[found.end() :].removeprefix("_")[: int(found[1])] if found else "other"
    if symbol == "main":
        return "firmware"
    if not symbol.startswith("_ZN"):
        return "constants" if symbol.startswith((".L", "anon.", "switch.", "str.", "vtable")) else "other"
    length = re.match(r"_ZN(\d+)", symbol)
    if not length:
        return "other"
    first = symbol[length.end() : length.end() + int(length[1])]
    # An implementation's name begins with its type: `_$LT$crate..Type$u20$as$u20$...`, also after references.
    inner = re.search(r"([a-z][a-z0-9_]*)\.\.", first)
    return first if "$" not in first else inner[1] if inner else "core"


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


def _text(program: bytes, offset: int) -> str:
    return program[offset : program.index(b"\0", offset)].decode()
