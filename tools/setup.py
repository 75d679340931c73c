"""Sets up the development environment; `just setup` runs it.

Installs Debian packages, the Python environment `.venv`, the Python package with its native extension, and
the program of the emulated board. It skips what is up to date. The output of apt, pip and cargo is shown only
if they fail. With --tools it ends after the Debian packages, which are all that Rust needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PLUGIN = ROOT / "python-plugin"
EXTENSION = PLUGIN / "src/torch_nano/_native.abi3.so"
CYCLE_MODEL = PLUGIN / "src/torch_nano/device/transport/cycles_plugin.abi3.so"
#: The latest of the emulated board's programs that are built together.
BOARD_PROGRAM = PLUGIN / "src/torch_nano/device/sensing-rv32imc.elf"
#: The target of nano-core's tests on 32 bits.
I686_TARGET = "i686-unknown-linux-gnu"
#: Where a toolchain has, in its `rustlib`, the source of core, which tools/cross-cargo builds for the chips.
CORE_SOURCE = "src/rust/library/core"
RUST_SOURCES = [ROOT / "Cargo.toml", ROOT / "Cargo.lock", ROOT / "nano-core", ROOT / "esp32-app/device"]


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036, whatever `python3` is runs this file
        stop(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with the error at the end
    install_debian_packages(missing_debian_packages())
    require_rust()
    if sys.argv[1:] == ["--tools"]:
        return

    if not (VENV / "bin/python").exists():
        with step("python environment: making .venv"):
            run(sys.executable, "-m", "venv", str(VENV))

    requirements = [PLUGIN / "pyproject.toml", PLUGIN / "setup.py", Path(__file__)]
    extension = [*RUST_SOURCES, PLUGIN / "native"]
    cycle_model = [ROOT / "Cargo.toml", ROOT / "Cargo.lock", PLUGIN / "cycles"]
    doing = "installing (torch alone has several GB)"
    if unless_unchanged("python packages", requirements, VENV, install_python_packages, doing):
        remember("native extension", extension)
        remember("cycle model", cycle_model)
    unless_unchanged("native extension", extension, EXTENSION, build_extension)
    unless_unchanged("cycle model", cycle_model, CYCLE_MODEL, build_extension)

    board = [*RUST_SOURCES, *(ROOT / "esp32-app" / name for name in ("Cargo.toml", "Cargo.lock", "virt"))]
    board += [ROOT / "tools/cross-cargo", ROOT / "tools/build-board"]
    unless_unchanged("emulated board", board, BOARD_PROGRAM, build_board)
    print("setup: complete")


def missing_debian_packages() -> list[str]:
    """The Debian packages of the tools that are missing; tools from other sources count as installed."""
    packages: list[str] = []
    if not (VENV / "bin/python").exists() and importlib.util.find_spec("ensurepip") is None:
        packages += ["python3-venv"]
    if shutil.which("cc") is None or shutil.which("g++") is None:
        packages += ["g++"]  # cc links Rust's programs, g++ is torch.compile's
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        packages += ["python3-dev"]  # torch.compile's, too
    if shutil.which("qemu-system-riscv32") is None:
        packages += ["qemu-system-misc"]
    if shutil.which("chromium") is None:
        packages += ["chromium"]  # tests look at the pages that the package writes
    if shutil.which("cargo") is None:
        packages += ["ca-certificates", "rustc-web", "cargo-web", "rustfmt-web", "rust-web-clippy"]
    tools = {
        "/usr/bin/rustc": "rustc-web",
        "/usr/bin/cargo": "cargo-web",
        f"/usr/lib/rustlib/{CORE_SOURCE}": "rust-web-src",
    }
    board_tools = {"/usr/bin/cargo-clippy": "rust-web-clippy", "/usr/bin/ld.lld-19": "lld-19"}
    # What rustup has in its toolchain, how it adds it, and what Debian has for the same.
    of_rustup = {
        CORE_SOURCE: (("component", "add", "rust-src"), tools | board_tools),
        I686_TARGET: (("target", "add", I686_TARGET), tools),
    }
    for folder, (addition, needed) in of_rustup.items():
        if not rustup_has(folder):
            missing = [package for path, package in needed.items() if not Path(path).exists()]
            if missing and not rustup_adds(*addition):
                packages += missing
    packages += missing_32_bit_packages()
    return list(dict.fromkeys(packages))


def missing_32_bit_packages() -> list[str]:
    """The packages that cc lacks to link 32-bit programs: the C library, and those of its own version."""
    compiler_version = "12"  # Debian 12's, which is about to be installed
    missing = {"crt1.o", "libgcc.a"}
    if shutil.which("cc") is not None:
        compiler_version = answer("cc", "-dumpversion")
        # For a library that cc does not find for 32 bits, it prints the 64-bit path, or the bare name.
        for name in sorted(missing):
            question = f"-print-file-name={name}"
            if answer("cc", "-m32", question) not in (name, answer("cc", question)):
                missing.remove(name)
    packages = {"crt1.o": "libc6-dev-i386", "libgcc.a": f"lib32gcc-{compiler_version}-dev"}
    return [packages[name] for name in sorted(missing)]


def answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def rustup_has(folder: str) -> bool:
    """Whether rustup's toolchain has this folder in its `rustlib`."""
    if shutil.which("rustup") is None or shutil.which("rustc") is None:
        return False
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, cwd=ROOT)
    return sysroot.returncode == 0 and (Path(sysroot.stdout.strip()) / "lib/rustlib" / folder).is_dir()


def rustup_adds(*addition: str) -> bool:
    if shutil.which("rustup") is None:
        return False
    command = ["rustup", *addition]
    try:
        with step(f"rust: {shlex.join(command)}"):
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        reason = "" if ended.returncode == 0 else (ended.stderr.strip() or f"status {ended.returncode}")
    except subprocess.TimeoutExpired:
        reason = "no end after 120 s"
    if reason:
        print(f"rust: taking Debian's, as rustup failed: {reason.splitlines()[-1]}")
    return not reason


def install_debian_packages(packages: list[str]) -> None:
    if not packages:
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
    print(f"debian packages: {names}")
    with step("debian packages: installing"):
        apt = (*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
        run(*apt, "update")
        run(*apt, "install", "-y", "--no-install-recommends", *packages)


def require_rust() -> None:
    """Stops unless `cargo` is as new as the stricter workspace requires."""
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
    build_system = read_toml(PLUGIN / "pyproject.toml")["build-system"]
    # Installed here, so that rebuilding the extension needs no network and no build environment.
    pip("install", *build_system["requires"])
    pip("install", "--no-build-isolation", "--editable", f"{PLUGIN}[dev,docs]")
    # Only for its recordings; its own requirements are outdated.
    pip("install", "--no-deps", "seglearn==1.2.5")


def build_extension() -> None:
    pip("install", "--no-build-isolation", "--no-deps", "--editable", str(PLUGIN))


def build_board() -> None:
    run(str(ROOT / "tools/build-board"))


def unless_unchanged(
    name: str, inputs: Iterable[Path], output: Path, action: Callable[[], None], doing: str = "building"
) -> bool:
    """Calls `action` if `output` is missing or `inputs` changed since its last success; returns whether."""
    inputs = list(inputs)
    stamp = stamp_file(name)
    if output.exists() and stamp.exists() and stamp.read_text() == digest(inputs):
        return False
    stamp.unlink(missing_ok=True)
    with step(f"{name}: {doing}"):
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
    """A hash of the names and contents of all files in `inputs`, recursively."""
    total = hashlib.sha256()
    for given in inputs:
        files = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
        for file in files:
            if "target" not in file.relative_to(ROOT).parts:
                total.update(f"{file.relative_to(ROOT)}\0".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def pip(*arguments: str) -> None:
    run(str(VENV / "bin/python"), "-m", "pip", arguments[0], "--disable-pip-version-check", *arguments[1:])


def run(*command: str) -> None:
    """Runs a command. If it fails, stops and shows its output."""
    ended = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if ended.returncode != 0:
        printed = ended.stdout.decode(errors="replace").rstrip()
        stop(f"failed with status {ended.returncode}: {shlex.join(command)}\nIt printed:\n{printed}")


@contextmanager
def step(doing: str) -> Iterator[None]:
    """Prints a step and, at its end, the seconds it took; a terminal counts them live."""
    started, ended = time.monotonic(), threading.Event()
    terminal = sys.stdout.isatty()

    def took() -> str:
        return f"{doing}: {time.monotonic() - started:.0f} s"

    def count() -> None:
        while True:
            print(f"\r{took()}", end="", flush=True)
            if ended.wait(1):
                break

    counter = threading.Thread(target=count)
    if terminal:
        counter.start()
    else:
        print(doing)
    try:
        yield
    finally:
        ended.set()
        if terminal:
            counter.join()
        print(f"\r{took()}" if terminal else took())


def stop(reason: str) -> None:
    sys.exit(f"setup: {reason}")


if __name__ == "__main__":
    main()
