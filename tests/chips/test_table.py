"""The table of chips: its facts are complete and plausible, and wrong names are refused."""

from __future__ import annotations

import re
import tomllib
from dataclasses import astuple
from pathlib import Path

import pytest
from esp_idf_defs import PartitionTable  # type: ignore[import-untyped]
from torch_nano import _native
from torch_nano.chips import Chip, chip, chips
from torch_nano.errors import ChipError

ROOT = Path(__file__).resolve().parents[2]


def test_the_c3_has_the_facts_of_its_data_sheet() -> None:
    c3 = chip("esp32c3")
    assert (c3.title, c3.target) == ("ESP32-C3", "riscv32imc-unknown-none-elf")
    assert (c3.ram, c3.model_ram, c3.flash, c3.clock) == (313 << 10, 288 << 10, 4 << 20, 160_000_000)
    assert (c3.cache.bytes, c3.cache.ways, c3.cache.line) == (16384, 8, 32)
    assert (c3.transport, c3.builds) == ("usb-serial-jtag", True)


@pytest.mark.parametrize("name", chips())
def test_every_chip_is_complete(name: str) -> None:
    facts = chip(name)
    assert facts.name == name == facts.title.lower().replace("-", "")
    assert facts.transport in ("usb-serial-jtag", "uart")
    assert 0 < facts.model_ram < facts.ram < facts.flash
    assert (facts.cache.bytes or 0) < facts.flash and 40_000_000 <= facts.clock <= 400_000_000
    assert facts.target.startswith("riscv32" if facts.builds else "xtensa")
    assert bool(facts.reason) != facts.builds
    if facts.costs is not None:
        assert facts.cache.bytes and facts.cache.ways and facts.cache.line, "the cycle model needs all of it"


def test_chips_with_known_costs_have_a_known_cache_and_costs_of_one_decimal() -> None:
    known = [facts for facts in chips().values() if facts.costs is not None]
    assert "esp32c3" in [facts.name for facts in known]
    for facts in known:
        assert facts.cache.ways is not None and facts.cache.line is not None
        source, *costs = astuple(facts.costs)
        assert source
        assert all(cost >= 0 and cost == round(cost, 1) for cost in costs)


def test_the_partitions_are_those_of_the_firmware() -> None:
    table = PartitionTable.from_csv((ROOT / "esp32-app/firmware/partitions.csv").read_text())
    for facts in chips().values():
        table.verify_size_fits(facts.flash)
        assert facts.app_flash == table["factory"].size
        assert facts.update_room in (0, _native.update_room(table["images"].size))
    # Two slots of whole pages, of which each keeps one for its seal.
    assert chip("esp32c3").update_room == table["images"].size // 2 - 4096


def test_chips_with_updates_are_those_whose_flash_is_mapped() -> None:
    mapping = (ROOT / "esp32-app/firmware/src/mapping.rs").read_text()
    ways = set(re.findall(r'#\[cfg\(mmu = "(\w+)"\)\]\s*mod table', mapping))
    table = tomllib.loads((ROOT / "python-plugin/src/torch_nano/chips/chips.toml").read_text())
    assert {table[name].get("mmu", "unknown") for name in chips()} == ways
    assert [name for name in chips() if "mmu" in table[name]] == [
        name for name in chips() if chip(name).update_room
    ]


def test_a_chip_is_found_by_its_title() -> None:
    assert chip("ESP32-C6") is chip("esp32c6")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("esp32c33", r"there is no chip 'esp32c33'; the chips are esp32c2, .*; did you mean 'esp32c3'\?"),
        ("stm32", r"there is no chip 'stm32'; the chips are esp32c2, "),
        (3, r"chip is 3; expected one of esp32c2, "),
    ],
)
def test_a_wrong_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ChipError, match=message):
        chip(name)


def test_the_documentation_has_the_facts_of_the_table() -> None:
    text = (ROOT / "esp32-app/BOARDS.md").read_text()
    table = "\n".join(row(facts) for facts in chips().values())
    assert table in text, f"esp32-app/BOARDS.md: expected these rows\n{table}"


def row(facts: Chip) -> str:
    """A chip's row in the table of esp32-app/BOARDS.md."""
    connection = "USB" if facts.transport == "usb-serial-jtag" else "UART"
    first, second = facts.pins
    cells = [
        facts.title,
        facts.target.partition("-")[0],
        f"{facts.model_ram >> 10} KiB",
        f"{facts.flash >> 20} MiB, {facts.flash_clock // 1_000_000} MHz",
        f"{facts.clock // 1_000_000} MHz",
        f"{connection}, GPIO {first} and {second}",
        "builds" if facts.builds else "does not build here",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_firmware_has_a_feature_for_each_chip() -> None:
    manifest = tomllib.loads((ROOT / "esp32-app/firmware/Cargo.toml").read_text())
    features = manifest["features"]
    assert sorted(name for name in features if name.startswith("esp32")) == sorted(chips())
    for name in chips():
        crates = ("esp-hal", "esp-bootloader-esp-idf", "esp-storage")
        assert [part for part in features[name] if part.endswith(name)] == [
            f"{crate}/{name}" for crate in crates
        ]
