"""Rust programs with what an export writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import board_programs
import torch_nano as tn

REPOSITORY = Path(__file__).parents[2]
NANO_CORE = REPOSITORY / "nano-core"
#: Of these programs alone, where no other build has the lock.
TARGET = REPOSITORY / "target/exported"


def run_exported(nano: tn.NanoModule, folder: Path, main: str, given: bytes) -> bytes:
    """What a program prints for what it is given.

    Args:
        folder: an empty one for the program.
        main: its main.rs, in which `mod model` is the exported module.
    """
    nano.export(folder / "src")
    # A name for each test: they run in parallel, and their programs share a folder.
    name = re.sub("[^a-z0-9]+", "-", f"exported-{folder.parent.name}-{folder.name}".lower())
    (folder / "Cargo.toml").write_text(
        f'[package]\nname = "{name}"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
        f'[dependencies]\nnano-core = {{ path = "{NANO_CORE}" }}\n'
    )
    (folder / "src" / "main.rs").write_text(main)
    return cargo(folder, "run", given=given)


def run_crate(nano: tn.NanoModule, folder: Path, main: str, given: bytes) -> bytes:
    """What an example of the exported crate prints for what it is given.

    Args:
        folder: an empty one for the crate, whose name it has.
        main: the example.
    """
    nano.export(folder, crate=True, nano_core=NANO_CORE)
    # A name for each test: they run in parallel, and their programs share a folder.
    name = re.sub("[^a-z0-9]+", "_", f"{folder.parent.name}_{folder.name}".lower())
    (folder / "examples").mkdir()
    (folder / "examples" / f"{name}.rs").write_text(main)
    return cargo(folder, "run", "--example", name, given=given)


def run_crate_on_board(nano: tn.NanoModule, folder: Path, main: str, given: bytes) -> bytes:
    """What a program with the exported crate prints on the emulated board, an rv32imc chip without a system.

    Args:
        folder: an empty one for the crate, and the program in it.
        main: the program after its first lines; `mod board` is the board's.
        given: the bytes where the board has its model image.
    """
    nano.export(folder, crate=True, nano_core=NANO_CORE)
    program, virt = folder / "program", REPOSITORY / "esp32-app/virt"
    (program / "src").mkdir(parents=True)
    name = re.sub("[^a-z0-9]+", "-", f"board-{folder.parent.name}-{folder.name}".lower())
    crate = re.search(r'^name = "(.*)"$', (folder / "Cargo.toml").read_text(), re.MULTILINE)
    assert crate is not None
    (program / "Cargo.toml").write_text(
        f'[package]\nname = "{name}"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
        f'[dependencies]\nnano-core = {{ path = "{NANO_CORE}" }}\n{crate[1]} = {{ path = ".." }}\n'
        'riscv = { version = "0.16", default-features = false }\n'
    )
    (program / "build.rs").write_text(
        f'fn main() {{ println!("cargo::rustc-link-arg-bins=-T{virt / "virt.ld"}"); }}\n'
    )
    (program / "src/main.rs").write_text(
        f'#![no_std]\n#![no_main]\n#[path = "{virt / "src/board.rs"}"]\nmod board;\n{main}'
    )
    lock = REPOSITORY / "esp32-app/Cargo.lock"
    cargo(program, "build", "--release", program=REPOSITORY / "tools/cross-cargo", lock=lock)
    (folder / "given").write_bytes(given)
    return board_programs.run(
        TARGET / "riscv32imc-unknown-none-elf/release" / name, folder / "given"
    ).encode()


def cargo(
    folder: Path,
    *command: str,
    given: bytes = b"",
    program: str | Path = "cargo",
    lock: Path = REPOSITORY / "Cargo.lock",
) -> bytes:
    """What cargo prints, in a folder with a manifest."""
    shutil.copy(lock, folder / "Cargo.lock")
    verb, *arguments = command
    result = subprocess.run(
        [program, verb, "--quiet", "--offline", "--target-dir", TARGET, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout
