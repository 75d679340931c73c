"""The number of panic sites in the emulated board's program does not grow."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import pytest
from panic_sites import BOARD_PROGRAM, Site, by_crate, listing, panic_sites

LIMITS = Path(__file__).with_name("panic_sites.toml")


def test_the_board_program_has_no_more_panic_sites() -> None:
    program = BOARD_PROGRAM.read_bytes()
    sites, committed = panic_sites(program), tomllib.loads(LIMITS.read_text())
    found, limits = by_crate(sites), committed["sites"]
    assert found, "no program of a compiler that keeps locations is without any"
    if committed["compiler"].encode() not in program:
        # Another compiler proves a few panics more or fewer away.
        assert len(sites) <= 1.1 * sum(limits.values()), listing(sites)
        return
    wrong = {
        crate: (found.get(crate, 0), limits.get(crate, 0))
        for crate in sorted(found | limits)
        if found.get(crate, 0) != limits.get(crate, 0)
    }
    verdicts = [
        f"{crate}: {now} panic sites, {limit} were there: "
        + ("make them fewer" if now > limit else f"lower its number in {LIMITS.name} to {now}")
        for crate, (now, limit) in wrong.items()
    ]
    assert not verdicts, "\n".join([*verdicts, listing(sites)])


def program(*locations: tuple[str, int, int]) -> bytes:
    """An ELF program with one segment of file names, these locations, and words that only look like some."""
    base = 0x8000_0000
    names = b"".join(file.encode() for file, _, _ in locations).ljust(256, b"\0")
    place, words = base, [7, base, 8, 0, 1, base + 255, 4, 1, 1]
    for file, line, column in locations:
        words += [place, len(file), line, column]
        place += len(file)
    data = names + struct.pack(f"<{len(words)}I", *words)
    header = (
        b"\x7fELF\x01\x01".ljust(28, b"\0") + struct.pack("<II", 52, 0) + bytes(6) + struct.pack("<HH", 32, 1)
    )
    segment = struct.pack("<8I", 1, 84, base, base, len(data), len(data), 5, 4)
    return header.ljust(52, b"\0") + segment + data


def test_sites_are_distinct_locations_with_their_crates() -> None:
    given = program(
        ("/home/me/.cargo/registry/src/index/some-crate-0.13.0-rc.1/src/a/b.rs", 12, 3),
        ("device/src/session.rs", 4, 5),
        ("device/src/session.rs", 4, 6),
        ("device/src/session.rs", 4, 5),
        ("library/core/src/fmt/mod.rs", 2942, 38),
    )
    sites = panic_sites(given)
    assert sites == [
        Site("core", "fmt/mod.rs", 2942, 38),
        Site("device", "session.rs", 4, 5),
        Site("device", "session.rs", 4, 6),
        Site("some-crate", "a/b.rs", 12, 3),
    ]
    assert by_crate(sites) == {"core": 1, "device": 2, "some-crate": 1}
    assert listing(sites).splitlines()[0] == "   2 device session.rs: 4:5 4:6"


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a little-endian 32-bit ELF program: it starts with 4d5a"):
        panic_sites(b"MZ\x90\0\0\0")
