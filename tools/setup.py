"""Sets up what the project needs and this computer lacks; `just setup` runs it.

Debian packages, the Python environment `.venv`, the Python package with its native extension, and the
program of the emulated board. What is there already is skipped; what has changed is built again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PLUGIN = ROOT / "python-plugin"
EXTENSION = PLUGIN / "src/torch_nano/_native.abi3.so"
BOARD_PROGRAM = PLUGIN / "src/torch_nano/device/virt-rv32imc.elf"
RV32_TARGET = "riscv32imc-unknown-none-elf"
RUST_SOURCES = [ROOT / "Cargo.toml", ROOT / "Cargo.lock", ROOT / "nano-core", ROOT / "esp32-app/device"]


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036, whatever `python3` is runs this file
        stop(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with the commands' output
    install_debian_packages(missing_debian_packages())
    require_rust()

    if (VENV / "bin/python").exists():
        print("python environment: already there")
    else:
        print("python environment: making .venv")
        run(sys.executable, "-m", "venv", str(VENV))

    requirements = [PLUGIN / "pyproject.toml", Path(__file__)]
    extension = [*RUST_SOURCES, PLUGIN / "native"]
    if unless_unchanged("python packages", requirements, VENV, install_python_packages):
        remember("native extension", extension)
    unless_unchanged("native extension", extension, EXTENSION, build_extension)

    board = [*RUST_SOURCES, *(ROOT / "esp32-app" / name for name in ("Cargo.toml", "Cargo.lock", "virt"))]
    unless_unchanged("emulated board", board, BOARD_PROGRAM, build_board)


def missing_debian_packages() -> list[str]:
    """The Debian packages for the tools that are not there, however those that are there were installed."""
    packages: list[str] = []
    if not (VENV / "bin/python").exists() and importlib.util.find_spec("ensurepip") is None:
        packages += ["python3-venv"]
    if shutil.which("cc") is None or shutil.which("g++") is None:
        packages += ["g++"]  # cc links Rust's programs, g++ is torch.compile's
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        packages += ["python3-dev"]  # torch.compile's, too
    if shutil.which("qemu-system-riscv32") is None:
        packages += ["qemu-system-misc"]
    if shutil.which("cargo") is None:
        packages += ["ca-certificates", "rustc-web", "cargo-web", "rustfmt-web", "rust-web-clippy"]
    if not rustup_has_rv32():
        tools = {
            "/usr/bin/rustc": "rustc-web",
            "/usr/bin/cargo": "cargo-web",
            "/usr/bin/cargo-clippy": "rust-web-clippy",
            "/usr/lib/rustlib/src/rust/library/core": "rust-web-src",
            "/usr/bin/ld.lld-19": "lld-19",
        }
        missing = [package for path, package in tools.items() if not Path(path).exists()]
        if missing and not rustup_adds_rv32():
            packages += missing
    return list(dict.fromkeys(packages))


def rustup_has_rv32() -> bool:
    if shutil.which("rustup") is None or shutil.which("rustc") is None:
        return False
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, cwd=ROOT)
    return sysroot.returncode == 0 and (Path(sysroot.stdout.strip()) / "lib/rustlib" / RV32_TARGET).is_dir()


def rustup_adds_rv32() -> bool:
    if shutil.which("rustup") is None:
        return False
    print(f"rust for rv32: trying `rustup target add {RV32_TARGET}`")
    try:
        status = subprocess.run(["rustup", "target", "add", RV32_TARGET], cwd=ROOT, timeout=120).returncode
        added = status == 0
    except subprocess.TimeoutExpired:
        added = False
    if not added:
        print("rust for rv32: rustup cannot; taking Debian's")
    return added


def install_debian_packages(packages: list[str]) -> None:
    if not packages:
        print("debian packages: already there")
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        stop(f"missing, and this is not Debian: install what these Debian packages provide: {names}")
    if os.geteuid() == 0:
        prefix = []
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        prefix = ["sudo"]
    else:
        stop(
            "Debian packages are missing, and only root may install them. Nothing was done. Run as root:\n"
            f"    apt-get update && apt-get install --no-install-recommends {names}\n"
            "and then this again."
        )
    print(f"debian packages: installing {names}")
    run(*prefix, "apt-get", "update", "-qq")
    run(*prefix, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def require_rust() -> None:
    """Stops unless `cargo` is as new as the stricter workspace says it must be."""
    needed = read_toml(ROOT / "esp32-app/Cargo.toml")["workspace"]["package"]["rust-version"]
    answer = subprocess.run(["cargo", "--version"], capture_output=True, text=True, cwd=ROOT)
    version = re.search(r"cargo (\d+)\.(\d+)", answer.stdout)
    if version is None or tuple(map(int, version.groups())) < tuple(map(int, needed.split("."))):
        stop(
            f"Rust {needed} or newer is needed; {shutil.which('cargo')} answers: "
            f"{(answer.stdout or answer.stderr).strip()}\n"
            "With rustup: rustup update stable. With Debian's: apt-get install rustc-web cargo-web"
        )


def read_toml(file: Path) -> dict[str, Any]:
    import tomllib  # here, for the message about old Pythons to come first

    return tomllib.loads(file.read_text())


def install_python_packages() -> None:
    print("python packages: torch alone has several GB; this takes minutes")
    build_system = read_toml(PLUGIN / "pyproject.toml")["build-system"]
    # Installed, so that building the extension again needs neither network nor time for a build environment.
    pip("install", *build_system["requires"])
    pip("install", "--no-build-isolation", "--editable", f"{PLUGIN}[dev]")
    # Wanted for the recordings that it carries; its own requirements are old.
    pip("install", "--no-deps", "seglearn==1.2.5")


def build_extension() -> None:
    pip("install", "--no-build-isolation", "--no-deps", "--editable", str(PLUGIN))


def build_board() -> None:
    cargo = [str(ROOT / "tools/rv32-cargo"), "build", "--locked", "--release", "-p", "torch-nano-virt"]
    run(*cargo, cwd=ROOT / "esp32-app")
    built = ROOT / "esp32-app/target" / RV32_TARGET / "release/virt"
    BOARD_PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, BOARD_PROGRAM)


def unless_unchanged(name: str, inputs: Iterable[Path], output: Path, action: Callable[[], None]) -> bool:
    """Calls `action`, if `output` is missing or `inputs` changed since it last succeeded; says if it did."""
    inputs = list(inputs)
    stamp = stamp_file(name)
    if output.exists() and stamp.exists() and stamp.read_text() == digest(inputs):
        print(f"{name}: already there")
        return False
    print(f"{name}: building")
    stamp.unlink(missing_ok=True)
    action()
    remember(name, inputs)
    return True


def remember(name: str, inputs: Iterable[Path]) -> None:
    stamp = stamp_file(name)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest(inputs))


def stamp_file(name: str) -> Path:
    return VENV / "setup-stamps" / name.replace(" ", "-")


def digest(inputs: Iterable[Path]) -> str:
    """Hash of the names and contents of all files in and under `inputs`."""
    total = hashlib.sha256()
    for given in inputs:
        files = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
        for file in files:
            if "target" not in file.relative_to(ROOT).parts:
                total.update(f"{file.relative_to(ROOT)}\0".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def pip(*arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    run(str(VENV / "bin/python"), "-m", "pip", arguments[0], *quiet, *arguments[1:])


def run(*command: str, cwd: Path = ROOT) -> None:
    status = subprocess.run(command, cwd=cwd).returncode
    if status != 0:
        stop(f"failed with status {status}: {' '.join(command)}")


def stop(reason: str) -> None:
    sys.exit(f"setup: {reason}")


if __name__ == "__main__":
    main()
