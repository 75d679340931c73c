"""What set-up says where it cannot go on. It changes nothing: it finds no tool to change something with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "tools/setup.py"
# Whoever runs the tests, set-up sees an ordinary user.
AS_USER = "import os, runpy, sys; os.geteuid = lambda: 1000; runpy.run_path(sys.argv[1], run_name='__main__')"


def set_up(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_USER, str(SETUP)]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True)


def test_without_root_it_names_the_packages_and_the_command(tmp_path: Path) -> None:
    called = tmp_path / "called"
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\n: > {called}\n")
    apt.chmod(0o755)
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "only root may install them. Nothing was done." in result.stderr
    (command,) = (line.split() for line in result.stderr.splitlines() if "apt-get update" in line)
    assert {"g++", "qemu-system-misc", "cargo-web", "rustc-web"} <= set(command)
    assert not called.exists()


def test_without_apt_it_names_the_packages(tmp_path: Path) -> None:
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "this is not Debian" in result.stderr and "qemu-system-misc" in result.stderr


def test_an_old_rust_is_named_with_the_way_to_a_new_one(tmp_path: Path) -> None:
    for tool, output in {"cc": "", "g++": "", "qemu-system-riscv32": "", "cargo": "cargo 1.63.0"}.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\necho '{output}'\n")
        (tmp_path / tool).chmod(0o755)
    # rustup adds the target, so that no Debian package is asked for.
    (tmp_path / "rustup").write_text("#!/bin/sh\n")
    (tmp_path / "rustup").chmod(0o755)
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert f"newer is needed; {tmp_path}/cargo answers: cargo 1.63.0" in result.stderr
    assert "rustup update stable" in result.stderr
