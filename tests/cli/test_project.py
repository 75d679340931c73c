"""Projects of `torch-nano new`: for every chip and sensor; they pass their own test, and are flashed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch_nano_cli
from torch_nano.chips import chips
from torch_nano.fits.variant import Variant
from torch_nano_cli import checkout
from torch_nano_cli.main import app
from typer.testing import CliRunner

SENSORS = ["imu", *(variant.value for variant in Variant if variant.senses)]


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


@pytest.mark.parametrize("sensor", SENSORS)
def test_every_chip_and_sensor_has_a_project(tmp_path: Path, sensor: str) -> None:
    for name, facts in chips().items():
        folder = tmp_path / f"my-{name}"
        if not facts.builds:
            told = run("new", folder, "--chip", name, "--sensor", sensor, status=1)
            assert f"there is no firmware for {facts.title}" in " ".join(told.split())
            continue
        told = run("new", folder, "--chip", name, "--sensor", sensor)
        made = sorted(path.name for path in folder.iterdir())
        assert made == ["README.md", "justfile", "model.py", "test_project.py", "train.py"]
        assert all(file in told for file in made)
        for file in folder.iterdir():
            text = file.read_text()
            assert "$" not in text
            if file.suffix == ".py":
                compile(text, file.name, "exec")
        used = "lsm6dso" if sensor == "imu" else sensor
        assert f'CHIP, SENSOR = "{name}", "{used}"' in (folder / "model.py").read_text()


@pytest.mark.parametrize("sensor", ["imu", "voltage", "microphone"])
def test_a_project_passes_its_own_test(tmp_path: Path, sensor: str) -> None:
    folder = tmp_path / "my-watch"
    run("new", folder, "--sensor", sensor)
    made = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert made.returncode == 0 and "2 passed" in made.stdout, made.stdout + made.stderr


def test_the_firmware_of_a_project_is_built_from_the_checkout(tmp_path: Path, firmware_build: None) -> None:
    folder = tmp_path / "my-watch"
    run("new", folder)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, capture_output=True)
    script = [Path(sys.executable).with_name("torch-nano"), "flash", "esp32c3", "build/model"]
    made = subprocess.run(
        [*script, "--as", "lsm6dso", "--dry-run", "--with", "esptool"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "--chip esp32c3" in made.stdout and "write-flash" in made.stdout


def test_what_cannot_be_made_flashed_or_watched_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: object) -> str:
        told = run(*arguments, status=1)
        assert told.startswith("torch-nano: ")
        return " ".join(told.split())

    assert "the project's name is 'My Watch'; expected small letters" in error("new", tmp_path / "My Watch")
    assert "sensor is 'nose'" in error("new", tmp_path / "a", "--sensor", "nose")
    assert "esp32c9" in error("new", tmp_path / "a", "--chip", "esp32c9")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    assert "the folder is there, and not empty" in error("new", tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["file"]

    (tmp_path / "model.nano").write_bytes(b"x")
    assert "there is no such model" in error("flash", "esp32c3", tmp_path / "missing")
    assert "firmware is 'nose'" in error("flash", "esp32c3", tmp_path / "model.nano", "--as", "nose")
    told = error("flash", "esp32c3", tmp_path / "model.nano", "--source", tmp_path)
    assert "firmware is built from a checkout of torch-nano" in told and "--source" in told
    # As from a wheel: neither the working folder nor the package is in a checkout.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkout.torch_nano, "__file__", str(tmp_path / "site/torch_nano/__init__.py"))
    assert "there is none here" in error("monitor", "esp32c3")


def test_templates_are_in_the_package() -> None:
    folder = Path(torch_nano_cli.__file__).parent / "project"
    assert len(list(folder.glob("*.template"))) == 5
