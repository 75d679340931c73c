"""Rust programs with what an export writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import torch_nano as tn

REPOSITORY = Path(__file__).parents[2]
NANO_CORE = REPOSITORY / "nano-core"


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


def cargo(folder: Path, *command: str, given: bytes = b"", program: str | Path = "cargo") -> bytes:
    """What cargo prints, in a folder with a manifest."""
    shutil.copy(REPOSITORY / "Cargo.lock", folder / "Cargo.lock")
    # Their own, where no other build has the lock.
    target = REPOSITORY / "target/exported"
    verb, *arguments = command
    result = subprocess.run(
        [program, verb, "--quiet", "--offline", "--target-dir", target, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout
