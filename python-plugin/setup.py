"""What of the package is made by Rust: the native extension, the emulated board's program, and the version.

The Rust sources stand in the repository, next to this folder. A source distribution carries those that the
extension needs in `rust/`, laid out as in the repository, and the board's program as it was built: its
target takes a toolchain that few have.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import ExecError
from setuptools_rust import Binding, RustExtension

HERE = Path(__file__).resolve().parent
IN_CHECKOUT = not (HERE / "rust").is_dir()
RUST = HERE.parent if IN_CHECKOUT else HERE / "rust"
# Of `esp32-app`, the manifest is what its crates inherit from.
RUST_SOURCES = (
    *("Cargo.toml", "Cargo.lock", "nano-core", "python-plugin/native", "python-plugin/cycles"),
    *("esp32-app/Cargo.toml", "esp32-app/device"),
)


def build_board() -> None:
    """Builds the program of the emulated board; in a source distribution it is there.

    Raises:
        ExecError: it cannot be built.
    """
    if not IN_CHECKOUT:
        return
    if subprocess.run([RUST / "tools/build-board"]).returncode != 0:
        raise ExecError("the program of the emulated board cannot be built; the reason stands above")


class BuildPython(build_py):
    """Modules and data of a wheel. An editable installation reads them from the sources instead."""

    def run(self) -> None:
        if not self.editable_mode:
            build_board()
            # setuptools would pack modules that an earlier build left there and that are no more.
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class SourceDistribution(sdist):
    """The Python sources, and in `rust/` the crates of the extension."""

    def run(self) -> None:
        build_board()
        super().run()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        for name in RUST_SOURCES:
            source, copy = RUST / name, Path(base_dir, "rust", name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("target"))
            else:
                shutil.copyfile(source, copy)


setup(
    version=tomllib.loads((RUST / "Cargo.toml").read_text())["workspace"]["package"]["version"],
    cmdclass={"build_py": BuildPython, "sdist": SourceDistribution},
    rust_extensions=[
        RustExtension(
            "torch_nano._native",
            path=str(RUST / "python-plugin/native/Cargo.toml"),
            args=["--locked"],
            binding=Binding.PyO3,
            py_limited_api=True,
            debug=False,
        ),
        # A plugin of QEMU, not of Python: `py_limited_api` only gives it one file name for all Pythons.
        RustExtension(
            "torch_nano.device.transport.cycles_plugin",
            path=str(RUST / "python-plugin/cycles/Cargo.toml"),
            args=["--locked"],
            binding=Binding.NoBinding,
            py_limited_api=True,
            debug=False,
        ),
    ],
)
