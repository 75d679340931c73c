"""The texts of set-up. Nothing is installed: the tools that it finds are the test's own, or missing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "tools/setup.py"
USER, ROOT = 1000, 0


def command(user: int, *arguments: str) -> list[str]:
    """Set-up, which sees this user whoever runs the tests."""
    code = (
        f"import os, pathlib, runpy, sys; os.geteuid = lambda: {user}; del sys.argv[0]; "
        # Debian's toolchain may be here, beside rustup's.
        "exists = pathlib.Path.exists; "
        "pathlib.Path.exists = lambda path: path.parent != pathlib.Path('/usr/bin') and exists(path); "
        "runpy.run_path(sys.argv[0], None, '__main__')"
    )
    return [sys.executable, "-c", code, str(SETUP), *arguments]


def set_up(path: Path, user: int = USER, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path)}
    return subprocess.run(command(user, *arguments), env=environment, capture_output=True, text=True)


def set_up_on_a_terminal(path: Path, user: int) -> str:
    """All that is shown, in the order in which it comes."""
    terminal, end = pty.openpty()
    with subprocess.Popen(command(user), env={"PATH": str(path)}, stdout=end, stderr=end):
        os.close(end)
        shown = b""
        try:
            while received := os.read(terminal, 4096):
                shown += received
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(terminal)
    return shown.decode()


def make_tool(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """A folder with an apt-get that prints 2,000 lines and installs a cargo too old to go on with."""
    (tmp_path / "env").symlink_to("/usr/bin/env")
    lines = "i=0; while [ $i -lt 1000 ]; do echo Unpacking $i; echo Warning $i >&2; i=$((i + 1)); done"
    cargo = f"printf '#!/bin/sh\\necho cargo 1.63.0\\n' > {tmp_path}/cargo; /bin/chmod +x {tmp_path}/cargo"
    make_tool(tmp_path / "apt-get", f"{lines}\n{cargo}")
    return tmp_path


def test_without_root_it_names_the_packages_and_the_command(tmp_path: Path) -> None:
    called = tmp_path / "called"
    make_tool(tmp_path / "apt-get", f": > {called}")
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "only root may install them. Nothing was done." in result.stderr
    (words,) = (line.split() for line in result.stderr.splitlines() if "apt-get update" in line)
    assert {"g++", "qemu-system-misc", "chromium", "cargo-web", "rustc-web"} <= set(words)
    assert not called.exists()


def test_without_apt_it_names_the_packages(tmp_path: Path) -> None:
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "this is not Debian" in result.stderr and "qemu-system-misc" in result.stderr


def make_all_tools(folder: Path, cargo: str) -> None:
    # cc finds other files for 32 bits than for 64: it has both libraries.
    scripts = {"cc": "echo $1", "cargo": f"echo cargo {cargo}"}
    scripts |= dict.fromkeys(("g++", "qemu-system-riscv32", "chromium"), "")
    for tool, script in scripts.items():
        make_tool(folder / tool, script)
    # rustup adds what is missing, so that no Debian package is asked for.
    make_tool(folder / "rustup", "")


def test_the_tools_alone_need_no_python_environment(tmp_path: Path) -> None:
    make_all_tools(tmp_path, "99.0.0")
    result = set_up(tmp_path, USER, "--tools")
    assert result.returncode == 0 and not result.stderr
    assert "setup: complete" not in result.stdout


def test_an_old_rust_is_named_with_the_way_to_a_new_one(tmp_path: Path) -> None:
    make_all_tools(tmp_path, "1.63.0")
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert f"newer is needed; {tmp_path}/cargo answers: cargo 1.63.0" in result.stderr
    assert "rustup update stable" in result.stderr


def test_it_prints_what_it_does_and_not_what_apt_prints(apt: Path) -> None:
    result = set_up(apt, ROOT)
    packages, *steps = result.stdout.splitlines()
    assert packages.startswith("debian packages: ") and "qemu-system-misc" in packages
    assert steps[0] == "debian packages: installing"
    assert re.fullmatch(r"debian packages: installing: \d+ s", steps[1]) and len(steps) == 2
    # apt has done its work: what stops set-up is the next thing it looks at.
    assert result.stderr.startswith("setup: Rust ") and "Warning" not in result.stderr


def test_a_step_that_fails_shows_its_command_and_all_it_printed(apt: Path) -> None:
    with (apt / "apt-get").open("a") as script:
        script.write('echo "E: no such package"; [ "$1" = update ] || exit 100\n')
    result = set_up(apt, ROOT)
    assert result.returncode == 1
    first, _, *printed, last = result.stderr.splitlines()
    assert first.startswith(
        "setup: failed with status 100: env DEBIAN_FRONTEND=noninteractive apt-get install "
    )
    assert "qemu-system-misc" in first
    assert printed == [f"{word} {i}" for i in range(1000) for word in ("Unpacking", "Warning")]
    assert last == "E: no such package"
    assert "Unpacking" not in result.stdout


def test_a_terminal_shows_the_seconds_of_a_long_step(apt: Path) -> None:
    with (apt / "apt-get").open("a") as script:
        script.write("/bin/sleep 1.2\n")  # twice: update and install
    shown = set_up_on_a_terminal(apt, ROOT)
    counted = re.findall(r"\rdebian packages: installing: (\d+) s", shown)
    assert counted[0] == "0" and int(counted[-1]) >= 2 and len(counted) >= 4, shown
    # The counting is on one line, and what follows on another.
    assert re.search(r"installing: \d+ s\r\nsetup: Rust ", shown), shown
    assert "Unpacking" not in shown


def test_a_rustup_that_cannot_is_quoted_in_one_line(tmp_path: Path) -> None:
    make_tool(tmp_path / "rustup", "echo info: downloading >&2; echo error: no route to host >&2; exit 1")
    result = set_up(tmp_path)
    assert "taking Debian's, as rustup failed: error: no route to host" in result.stdout
    assert "downloading" not in result.stdout + result.stderr
