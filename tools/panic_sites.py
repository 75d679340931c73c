"""Lists the panic sites of the emulated board's program; `just panic-sites` runs it.

Every Rust panic has a `core::panic::Location`: a constant with file, line and column. The locations in the
linked program are the places where it can panic, after all optimizations.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BOARD_PROGRAM = ROOT / "python-plugin/src/torch_nano/device/virt-rv32imc.elf"
#: Upper bounds of a location's numbers, so that other words in memory are not mistaken for a location.
LONGEST_PATH, MOST_LINES, MOST_COLUMNS = 400, 100_000, 1_000


class Site(NamedTuple):
    """A place in the source where the program can panic."""

    crate: str
    #: Path in the crate's `src`.
    file: str
    line: int
    column: int


def panic_sites(program: bytes) -> list[Site]:
    """The panic sites of a little-endian 32-bit ELF program, sorted.

    Raises:
        ValueError: it is not such a program.
    """
    if program[:6] != b"\x7fELF\x01\x01":
        raise ValueError(f"not a little-endian 32-bit ELF program: it starts with {program[:6].hex()}")
    segments = list(_loaded_segments(program))
    sites = set()
    for segment in segments:
        words = len(segment.data) // 4
        numbers = struct.unpack_from(f"<{words}I", segment.data)
        # Location { file: &str, line: u32, column: u32 }, and a &str is an address and a length.
        for address, length, line, column in zip(
            numbers, numbers[1:], numbers[2:], numbers[3:], strict=False
        ):
            if length > LONGEST_PATH or not 1 <= line <= MOST_LINES or not 1 <= column <= MOST_COLUMNS:
                continue
            path = next(filter(None, (other.read(address, length) for other in segments)), b"")
            if path.endswith(b".rs"):
                sites.add(_site(path.decode(), line, column))
    return sorted(sites)


def by_crate(sites: list[Site]) -> dict[str, int]:
    """Number of sites of each crate, in the order of names."""
    return dict(sorted(Counter(site.crate for site in sites).items()))


def listing(sites: list[Site]) -> str:
    """All sites: a line per file with their lines and columns, the file with the most sites first."""
    files: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        files.setdefault((site.crate, site.file), []).append(site)
    ordered = sorted(files.items(), key=lambda item: (-len(item[1]), item[0]))
    return "\n".join(
        f"{len(places):4} {crate} {file}: {' '.join(f'{place.line}:{place.column}' for place in places)}"
        for (crate, file), places in ordered
    )


class _Segment(NamedTuple):
    address: int
    data: bytes

    def read(self, address: int, length: int) -> bytes:
        """The bytes at an address; empty unless all are in this segment."""
        start = address - self.address
        return self.data[start : start + length] if 0 <= start <= len(self.data) - length else b""


def _loaded_segments(program: bytes) -> Iterator[_Segment]:
    (offset,) = struct.unpack_from("<I", program, 28)
    entry_size, entries = struct.unpack_from("<HH", program, 42)
    for index in range(entries):
        kind, start, address, _, size = struct.unpack_from("<5I", program, offset + index * entry_size)
        if kind == 1:  # PT_LOAD
            yield _Segment(address, program[start : start + size])


def _site(path: str, line: int, column: int) -> Site:
    folder, _, file = path.rpartition("/src/")
    # Downloaded crates lie in NAME-VERSION.
    crate = re.sub(r"-\d+\.\d.*", "", folder.rpartition("/")[2])
    return Site(crate, file, line, column)


def main() -> None:
    sites = panic_sites(BOARD_PROGRAM.read_bytes())
    print(listing(sites))
    print("\n".join(f"{crate} = {count}" for crate, count in by_crate(sites).items()))
    print(f"{len(sites)} in all")


if __name__ == "__main__":
    main()
