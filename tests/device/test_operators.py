"""Operators with states, several outputs and other dtypes than int8, on the emulated board: its bytes are
those of the reference in nano-core's tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch_nano.device.transport.qemu import _places

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "esp32-app/target/riscv32imc-unknown-none-elf/release/examples/operators"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nano-core's test leaves for the board, which is built, too."""
    folder = tmp_path_factory.mktemp("cases")
    # Without what would make cargo build for another target.
    host = {name: value for name, value in os.environ.items() if name != "CARGO_BUILD_TARGET"}
    test = ["cargo", "test", "--quiet", "--package", "nano-core", "--all-features", "--test", "operators"]
    build = [
        ROOT / "tools/cross-cargo",
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--example",
        "operators",
    ]
    for command, environment, place in (
        (test, {**host, "TORCH_NANO_CASES": str(folder)}, ROOT),
        ([*build, "--package", "torch-nano-virt"], host, ROOT / "esp32-app"),
    ):
        result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("recurrent", 60 * (7 + 2 * 7)),
        ("wide", 40 * (4 * 4 + 2 * 9)),
        ("moved", 20 * 2 * (24 + 15)),
    ],
)
def test_the_board_gives_the_bytes_of_the_reference(cases: Path, name: str, count: int) -> None:
    qemu = shutil.which("qemu-system-riscv32")
    assert qemu is not None
    _, (start, room) = _places(PROGRAM)
    memory = f"{(start + room - 0x8000_0000) >> 20}M"
    options = [
        *("-machine", "virt", "-bios", "none", "-nodefaults", "-display", "none", "-m", memory),
        *("-cpu", "lowrisc-ibex"),
        *("-serial", "stdio", "-device", f"loader,file={PROGRAM}"),
        *("-device", f"loader,file={cases / name},addr={start:#x},force-raw=on"),
    ]
    result = subprocess.run(
        [qemu, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.fullmatch(rf"{count} bytes are equal\s*", result.stdout)
