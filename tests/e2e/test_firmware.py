"""The ESP32-C3 firmware: it builds with an exported model, esptool takes it, what cannot work is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
import torch_nano as tn
from torch import nn
from torch_nano import _native
from torch_nano.device.client import Device
from torch_nano.device.transport.qemu import QemuBoard

from .tiny_model import tiny_model

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "esp32-app/target/riscv32imc-unknown-none-elf/release/firmware"


def build(model: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools/cross-cargo", "build", "--locked", "--release", "-p", "torch-nano-firmware"],
        cwd=ROOT / "esp32-app",
        env={**os.environ, "TORCH_NANO_MODEL": str(model)},
        capture_output=True,
        text=True,
    )


def flash_image(program: Path, image: Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "tools/flash-image", program, image]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


# One test for the one build: a second worker would build it again, and over the first.
def test_the_firmware_holds_its_model_and_only_its_operators(tmp_path: Path) -> None:
    nano = tiny_model()
    nano.export(tmp_path)
    built = build(tmp_path)
    assert built.returncode == 0, built.stderr

    image = tmp_path / "firmware.bin"
    made = flash_image(FIRMWARE, image)
    assert made.returncode == 0, made.stdout + made.stderr
    assert re.search(r"^Checksum: 0x[0-9a-f]{2} \(valid\)$", made.stdout, re.MULTILINE)
    assert re.search(r"^Validation hash: [0-9a-f]{64} \(valid\)$", made.stdout, re.MULTILINE)
    assert nano.image in image.read_bytes()

    # A kernel is linked with its operator's name. Short names can also come from elsewhere.
    names = {name for name in _native.operators() if len(name) >= 10}
    program = image.read_bytes().replace(nano.image, b"")
    assert not {name for name in names if name.encode() in program}
    assert b"conv2d" in program


def test_a_file_that_is_not_a_program_gives_no_flash_image(tmp_path: Path) -> None:
    program = tmp_path / "firmware"
    program.write_text("no program")
    made = flash_image(program, tmp_path / "firmware.bin")
    assert made.returncode != 0
    assert "ELF" in made.stderr
    assert not (tmp_path / "firmware.bin").exists()


def test_the_exported_sizes_are_those_of_the_device(tmp_path: Path) -> None:
    nano = tiny_model()
    nano.export(tmp_path)
    module = (tmp_path / "model.rs").read_text()
    sizes = {
        name: int(value) for name, value in re.findall(r"^pub const (\w+): usize = (\d+);", module, re.M)
    }
    with Device(QemuBoard(nano.image)) as device:
        info = device.info
        layers = device.profile(np.zeros(info.input_length, np.int8))
    assert sizes == {
        "ARENA_LENGTH": info.arena_length,
        "INPUT_LENGTH": info.input_length,
        "OUTPUT_LENGTH": info.output_length,
        "LAYERS": len(layers) - 1,  # without the head
        "CLASSES": info.classes,
    }


def test_a_model_that_does_not_fit_the_ram_does_not_compile(tmp_path: Path) -> None:
    model, x = nn.MaxPool2d(2), torch.rand(1, 1, 800, 800)
    tn.to_nano(model, x, calibrate=x).export(tmp_path)
    built = build(tmp_path)
    assert built.returncode != 0
    sentence = r"the model needs (\d+) bytes of RAM \(arena (\d+), .*this chip has (\d+)"
    found = re.search(sentence, built.stderr)
    assert found, built.stderr
    needed, arena, available = map(int, found.groups())
    assert needed > arena >= 800 * 800 > available


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    built = build(tmp_path / "missing")
    assert built.returncode != 0
    assert f"no model for the firmware: {tmp_path}/missing/model.rs: No such file" in built.stderr
    assert "Export one" in built.stderr


def test_flashing_without_probe_rs_says_how_to_get_it() -> None:
    just = shutil.which("just")
    assert just, "just is missing: pip install rust-just"
    folders = [Path(folder) for folder in os.environ["PATH"].split(":")]
    path = ":".join(str(folder) for folder in folders if not (folder / "probe-rs").exists())
    environment = {**os.environ, "PATH": path}
    flash = subprocess.run([just, "flash"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert flash.returncode != 0
    assert "Install it: cargo install probe-rs-tools --locked" in flash.stderr
