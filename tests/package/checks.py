"""The wheel, the source distribution and the checkout install into fresh environments and work outside the
repository; the crates that would be published are whole. `just package` runs this file and leaves what it
built in `build/package`; its name keeps it out of runs on several workers, where each would build the same.

The fresh environments see the packages that torch_nano depends on by links to those installed here, since
torch alone takes gigabytes; they see no torch_nano, no build tool and nothing of the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch_nano
from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "python-plugin"
BUILT = ROOT / "build/package"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
BOARD_PROGRAMS = {f"torch_nano/device/{name}-rv32imc.elf" for name in ("virt", "sensing")}
BUILT_BY_CARGO = {"torch_nano/_native.abi3.so", "torch_nano/device/transport/cycles_plugin.abi3.so"}
PAGES = ("*.html", "*.css", "*.js", "*.template")
# Where the crates are that can be published, and what cargo needs to know until nano-core is.
CRATES: dict[str, tuple[str, ...]] = {
    "nano-core": ("nano-core",),
    "torch-nano-device": (
        "esp32-app/device",
        "--config",
        f'patch.crates-io.nano-core.path="{ROOT / "nano-core"}"',
    ),
}
# torch_nano, what would bring the checkout's back, and what a build environment must bring itself.
NOT_A_DEPENDENCY = re.compile(r"torch_nano|__editable__|.*\.pth$|pip|setuptools_rust|semantic_version")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command printed on both streams; fails with it if the command does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # By default pyo3 is compiled again for each environment, though all have one interpreter.
    kept["PYO3_PYTHON"] = sys.executable
    ended = subprocess.run(
        command, cwd=cwd, env=kept | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))}\n{ended.stdout}"
    return ended.stdout


def build_wheel(plugin: Path, into: Path) -> list[str | Path]:
    """The command that builds the wheel of a plugin's folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    return [*pip, "--wheel-dir", into, plugin]


@pytest.fixture(scope="module")
def stale_module() -> None:
    """A module that was removed after an earlier build."""
    left = (
        PLUGIN / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}/torch_nano/removed.py"
    )
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()


@pytest.fixture(scope="module")
def sdist() -> Path:
    shutil.rmtree(BUILT, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", BUILT, PLUGIN, cwd=ROOT)
    (file,) = BUILT.glob("*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(sdist: Path, stale_module: None) -> Path:
    """Built in the checkout."""
    run(*build_wheel(PLUGIN, BUILT), cwd=ROOT)
    (file,) = BUILT.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dependencies")
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if not NOT_A_DEPENDENCY.match(installed.name):
            (folder / installed.name).symlink_to(installed)
    return folder


@pytest.fixture
def install(dependencies: Path, tmp_path: Path) -> Callable[..., Path]:
    """Installs into a fresh environment; its folder of programs."""

    def installed(*what: str | Path, **environment: str) -> Path:
        fresh = tmp_path / "fresh"
        run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=tmp_path)
        (packages,) = fresh.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(f"{dependencies}\n")
        python = fresh / "bin/python"
        pip = (sys.executable, "-m", "pip", "--python", python, "--no-cache-dir")
        run(*pip, "install", *what, cwd=tmp_path, **environment)
        return python.parent

    return installed


def works(programs: Path, tmp_path: Path) -> None:
    """All that the package is for, from its command to its README's code."""
    outside = tmp_path / "outside"
    outside.mkdir()
    script = Path(__file__).with_name("installed.py")
    printed = run(programs / "python", "-I", script, ROOT, cwd=outside)
    assert printed.splitlines()[-1] == f"torch_nano {VERSION} works"
    assert "Usage: torch-nano device" in run(
        programs / "torch-nano", "device", "--help", cwd=outside, COLUMNS="80"
    )


def test_the_wheel_installs_and_works(wheel: Path, install: Callable[..., Path], tmp_path: Path) -> None:
    # Without an index: the dependencies it declares are met by those that are there.
    works(install("--no-index", wheel), tmp_path)


def test_the_source_distribution_builds_outside_the_checkout_and_works(
    sdist: Path, install: Callable[..., Path], tmp_path: Path
) -> None:
    # The crates of others are taken as they are compiled already; ours are compiled from the file.
    compiled = tmp_path / "target"
    ours = shutil.ignore_patterns("*nano[-_]core*", "*torch[-_]nano*", "*_native*")
    shutil.copytree(ROOT / "target/release", compiled / "release", ignore=ours)
    # pip unpacks next to this file, which cargo finds from there: that it builds is tested, not its speed.
    (tmp_path / ".cargo").mkdir()
    profile = "".join(
        f"[profile.release.package.{name}]\nopt-level = 0\n"
        for name in ("nano-core", "torch-nano-device", "torch-nano-native")
    )
    (tmp_path / ".cargo/config.toml").write_text(profile)
    works(install(sdist, CARGO_TARGET_DIR=str(compiled), TMPDIR=str(tmp_path)), tmp_path)
    assert {"libnano_core", "libtorch_nano_device"} <= {
        file.name.partition("-")[0] for file in compiled.glob("release/deps/*.rlib")
    }


def test_the_checkout_installs_and_works(
    stale_module: None, install: Callable[..., Path], tmp_path: Path
) -> None:
    works(install(PLUGIN), tmp_path)


def test_the_wheel_holds_the_sources_the_extension_and_the_board_and_nothing_else(wheel: Path) -> None:
    sources = {
        str(file.relative_to(PLUGIN / "src"))
        for pattern in ("*.py", "*.pyi", "*.toml", "*.nanomodel", "*.jinja", *PAGES, "py.typed")
        for file in (PLUGIN / "src").rglob(pattern)
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        described = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
        metadata = Metadata.from_email(archive.read(f"torch_nano-{VERSION}.dist-info/METADATA"))
        boards = {name: archive.read(name) for name in BOARD_PROGRAMS}
    assert packed == sources | BUILT_BY_CARGO | BOARD_PROGRAMS
    assert {"LICENSE-MIT", "LICENSE-APACHE", "entry_points.txt"} <= described
    assert metadata.description == (ROOT / "README.md").read_text()
    assert metadata.license_expression == "MIT OR Apache-2.0"
    assert boards == {name: (PLUGIN / "src" / name).read_bytes() for name in BOARD_PROGRAMS}


def test_the_source_distribution_holds_nothing_compiled_but_the_board(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    boards = {f"src/{program}" for program in BOARD_PROGRAMS}
    assert {"rust/Cargo.lock", "rust/nano-core/src/lib.rs", "LICENSE-MIT"} | boards <= set(names)
    # Of nano-core's examples a model and its data, and the models of the zoo.
    examples = {".bin", ".nano", ".nanomodel"}
    allowed = {".py", ".pyi", ".rs", ".toml", ".lock", ".md", ".txt", ".cfg", ".typed", ".elf", ".jinja", ""}
    allowed |= {Path(page).suffix for page in PAGES}
    assert {Path(name).suffix for name in names if not name.endswith(".egg-info")} <= allowed | examples
    assert not [name for name in names if "target" in Path(name).parts]


def test_the_version_stands_in_one_place(sdist: Path, wheel: Path) -> None:
    assert torch_nano.__version__ == VERSION
    # cargo cannot inherit from another workspace.
    devices = tomllib.loads((ROOT / "esp32-app/Cargo.toml").read_text())["workspace"]
    assert devices["package"]["version"] == devices["dependencies"]["nano-core"]["version"] == VERSION
    assert sdist.name == f"torch_nano-{VERSION}.tar.gz" and wheel.name.startswith(
        f"torch_nano-{VERSION}-cp311-abi3-"
    )


def test_a_wheel_without_the_board_is_not_built(tmp_path: Path) -> None:
    plugin = tmp_path / "python-plugin"
    shutil.copytree(
        PLUGIN, plugin, ignore=shutil.ignore_patterns("build", "native", "examples", "*.elf", "*.so")
    )
    shutil.copyfile(ROOT / "Cargo.toml", tmp_path / "Cargo.toml")
    build_board = tmp_path / "tools/build-board"
    build_board.parent.mkdir()
    build_board.write_text("#!/bin/sh\necho no toolchain >&2\nexit 1\n")
    build_board.chmod(0o755)
    command = build_wheel(plugin, tmp_path)
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "no toolchain\nerror: the program of the emulated board cannot be built" in re.sub(
        r"(?m)^ +", "", ended.stdout + ended.stderr
    )
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.parametrize("crate", CRATES)
def test_the_crate_is_complete(crate: str) -> None:
    folder, *options = CRATES[crate]
    workspace = ROOT / folder / ".."
    command = ("cargo", "publish", "--dry-run", "--allow-dirty", "-p", crate, *options)
    printed = run(*command, cwd=workspace)
    warnings = [line for line in printed.splitlines() if line.startswith("warning")]
    # The device's tests, which take helpers of nano-core's, stay in the repository.
    warnings = [line for line in warnings if not re.match(r"warning: ignoring test `\w+` as `tests/", line)]
    assert warnings == ["warning: aborting upload due to dry run"], printed
    packed = workspace / f"target/package/{crate}-{VERSION}"
    assert {"LICENSE-MIT", "LICENSE-APACHE", "README.md"} <= {file.name for file in packed.iterdir()}
    # Equal files that compile by themselves pass the tests that they pass in the checkout.
    tested = crate == "nano-core"
    kept = {name: data for name, data in contents(ROOT / folder).items() if tested or name.startswith("src/")}
    assert contents(packed) == kept
    check = ("cargo", "check", "--quiet", "--tests", "--all-features", "--target-dir", workspace / "target")
    run(*check, *options, cwd=packed)


def contents(crate: Path) -> dict[str, bytes]:
    """The sources and tests of a crate."""
    files = [file for folder in ("src", "tests") for file in (crate / folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(crate)): file.read_bytes() for file in files}
