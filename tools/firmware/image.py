"""The flash image of a firmware: bootloader, partition table and program in one file, for address 0."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from esp_idf_defs import PartitionDefinition, PartitionTable  # type: ignore[import-untyped]
from esp_idf_defs.partitions import InputError  # type: ignore[import-untyped]
from esptool.targets import CHIP_DEFS  # type: ignore[import-untyped]
from torch_nano.chips import Chip

from .commands import ROOT, Commands, in_repository
from .errors import CommandFailed, FirmwareError, ImageInvalid, ModelTooLarge

PARTITIONS = ROOT / "esp32-app/firmware/partitions.csv"
#: Where esp-hal's programs look for the table: ESP-IDF's default.
TABLE_OFFSET = 0x8000
#: The flash as all chips can read it: on two data lines.
_MODE = "dio"


@dataclass(frozen=True)
class FlashImage:
    """The files of a firmware for the flash."""

    #: The program alone.
    program: Path
    #: Bootloader, partition table and program, for address 0.
    merged: Path
    #: Bytes of the program, and of its partition.
    length: int
    partition: int


def esptool(chip: Chip) -> tuple[str | Path, ...]:
    """The start of an esptool command."""
    return (Path(sys.executable), "-m", "esptool", "--chip", chip.name)


def make(chip: Chip, elf: Path, folder: Path, commands: Commands) -> FlashImage:
    """Makes the flash image of an ELF program in `folder`, and checks it with esptool.

    Raises:
        ModelTooLarge: the program is larger than its partition.
        ImageInvalid: a checksum, hash or chip is wrong.
        FirmwareError: the partition table is invalid.
        CommandFailed: esptool refuses the program, or cargo cannot download the bootloader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program, table = folder / f"{chip.name}-program.bin", folder / f"{chip.name}-partitions.bin"
    partition = _write_table(chip, table)
    size = f"{chip.flash >> 20}MB"
    flash = ("--flash-mode", _MODE, "--flash-freq", f"{chip.flash_clock // 1_000_000}m", "--flash-size", size)
    commands.run(*esptool(chip), "elf2image", *flash, "--output", program, elf)
    check(chip, program, commands)
    length = program.stat().st_size
    if length > partition.size:
        raise ModelTooLarge(
            f"{chip.title}: the program with its model has {length} bytes, and its partition in "
            f"{in_repository(PARTITIONS)} has {partition.size}: make the model smaller, or the partition "
            "larger on a board with more flash"
        )
    merged = folder / f"{chip.name}.bin"
    parts: list[str | Path] = [hex(bootloader_offset(chip)), bootloader(chip, commands)]
    parts += [hex(TABLE_OFFSET), table, hex(partition.offset), program]
    commands.run(*esptool(chip), "merge-bin", *flash, "--output", merged, *parts)
    return FlashImage(program, merged, length, partition.size)


def check(chip: Chip, image: Path, commands: Commands) -> None:
    """Checks a program's checksum, hash and chip with esptool.

    Raises:
        ImageInvalid: one of them is wrong.
    """
    try:
        # Without the chip's name, as esptool then names the one that the image is for.
        info = commands.run(Path(sys.executable), "-m", "esptool", "image-info", image)
    except CommandFailed as error:
        raise ImageInvalid(f"{image} is no flash image: {error}") from error
    valid = re.findall(r"^(Checksum|Validation hash): .* \(valid\)$", info, re.MULTILINE)
    detected = re.search(r"^Detected image type: (\S+)$", info, re.MULTILINE)
    if len(valid) != 2 or not detected or detected[1] != chip.title:
        raise ImageInvalid(
            f"{image}: expected a valid checksum and hash for {chip.title}; esptool says\n{info}"
        )


def bootloader_offset(chip: Chip) -> int:
    """Where the chip's ROM expects the bootloader in the flash."""
    return int(CHIP_DEFS[chip.name].BOOTLOADER_FLASH_OFFSET)


def bootloader(chip: Chip, commands: Commands) -> Path:
    """Espressif's bootloader of a chip, which cargo downloads with the crate espflash.

    Raises:
        CommandFailed: cargo cannot download it.
    """
    manifest = ROOT / "tools/bootloaders/Cargo.toml"
    metadata = commands.run(
        *("cargo", "metadata", "--locked", "--quiet", "--format-version", "1"), "--manifest-path", manifest
    )
    packages = json.loads(metadata)["packages"]
    espflash = next(Path(package["manifest_path"]) for package in packages if package["name"] == "espflash")
    return espflash.parent / f"resources/bootloaders/{chip.bootloader}-bootloader.bin"


def _write_table(chip: Chip, file: Path) -> PartitionDefinition:
    """Writes the binary partition table; returns the program's partition."""
    try:
        table = PartitionTable.from_csv(PARTITIONS.read_text(), partition_table_offset=TABLE_OFFSET)
        table.verify(partition_table_offset=TABLE_OFFSET)
        table.verify_size_fits(chip.flash)
    except InputError as error:
        raise FirmwareError(f"{in_repository(PARTITIONS)} is no partition table: {error}") from error
    file.write_bytes(table.to_binary())
    return next(table.find_by_type("app", "factory"))
