"""The checkout of torch-nano, from which firmware is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch_nano
from torch_nano.errors import MissingFileError


def checkout(source: Path | None) -> Path:
    """The folder of a checkout: `source`, that of the working folder, or that of this package.

    Raises:
        MissingFileError: it is none.
    """
    here, package = Path.cwd().resolve(), Path(torch_nano.__file__).resolve()
    candidates = [here, *here.parents, *package.parents] if source is None else [source.resolve()]
    for folder in candidates:
        if (folder / "esp32-app/firmware/Cargo.toml").is_file() and (folder / "tools/firmware").is_dir():
            return folder
    where = "there is none here" if source is None else f"{source} is none"
    raise MissingFileError(
        f"firmware is built from a checkout of torch-nano, and {where}: clone its repository, run "
        "`just setup` there, and name its folder by --source"
    )


def run_tools(source: Path | None, *arguments: str) -> int:
    """Runs a command of the checkout's tools, as its justfile does; returns its exit status.

    Raises:
        MissingFileError: there is no checkout.
    """
    root = checkout(source)
    # Its own environment has what it needs to build; without one this one may.
    own = root / ".venv/bin/python"
    python = own if own.exists() else Path(sys.executable)
    return subprocess.run([python, "-m", "tools.firmware", *arguments], cwd=root).returncode
