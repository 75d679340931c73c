"""A Rust program with the module that an export writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import torch_nano as tn

REPOSITORY = Path(__file__).parents[2]


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
        f'[dependencies]\nnano-core = {{ path = "{REPOSITORY}/nano-core" }}\n'
    )
    (folder / "src" / "main.rs").write_text(main)
    shutil.copy(REPOSITORY / "Cargo.lock", folder / "Cargo.lock")
    # Their own, where no other build has the lock.
    target = REPOSITORY / "target/exported"
    result = subprocess.run(
        ["cargo", "run", "--quiet", "--offline", "--target-dir", target],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout
