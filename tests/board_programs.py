"""The examples of `esp32-app/virt`: small programs for the emulated board."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from torch_nano.device.transport.qemu import _places

ROOT = Path(__file__).resolve().parents[1]
_PROGRAMS = ROOT / "esp32-app/target/riscv32imc-unknown-none-elf/release/examples"


def run_host(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Runs cargo, or a program that it has built, in a folder; returns its output."""
    # Without what would make cargo build for another target.
    host = {name: value for name, value in os.environ.items() if name != "CARGO_BUILD_TARGET"}
    result = subprocess.run(command, cwd=folder, env={**host, **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(example: str) -> Path:
    """Builds an example; returns the program."""
    options = ["--quiet", "--locked", "--release", "--package", "torch-nano-virt", "--example", example]
    run_host([ROOT / "tools/cross-cargo", "build", *options], ROOT / "esp32-app")
    return _PROGRAMS / example


def room(program: Path) -> int:
    """Bytes of the board's flash for a model."""
    return _places(program)[1][1]


def run(program: Path, flash: Path, *, timeout: float = 60) -> str:
    """Runs a program with a file in the board's flash; returns what it prints if its status is 0."""
    qemu = shutil.which("qemu-system-riscv32")
    assert qemu is not None
    _, (start, size) = _places(program)
    memory = f"{(start + size - 0x8000_0000) >> 20}M"
    options = [
        *("-machine", "virt", "-bios", "none", "-nodefaults", "-display", "none", "-m", memory),
        *("-cpu", "lowrisc-ibex"),
        *("-serial", "stdio", "-device", f"loader,file={program}"),
        *("-device", f"loader,file={flash},addr={start:#x},force-raw=on"),
    ]
    result = subprocess.run(
        [qemu, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
