"""The firmware: it builds with a model, esptool takes its flash image, and what cannot work is refused."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from esp_idf_defs import PartitionTable
from esptool.targets import CHIP_DEFS
from firmware import build, image, ports
from firmware.__main__ import app
from firmware.commands import Commands
from firmware.errors import CommandFailed, FirmwareError, ImageInvalid, ModelMissing, ModelTooLarge
from firmware.size import firmware_size
from panic_sites import panic_sites
from torch import nn
from torch_nano import _native
from torch_nano.chips import chip
from torch_nano.device.client import Device
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.fits.variant import Variant
from typer.testing import CliRunner

from .tiny_model import motion_model, tiny_model

CHIPS = ("esp32c3", "esp32c6")

#: The most bytes of flash that the programs take without the model; 1 KB is 1,000 bytes.
PROGRAMS = {Variant.SERVER: 100_000, Variant.MPU6050: 121_000, Variant.CLASSIFIER: 45_000}
#: The most bytes of core::fmt. Panics are printed without it; an assertion of sequential-storage still links
#: decimal numbers.
FORMATTING = {Variant.SERVER: 1_000, Variant.MPU6050: 1_000, Variant.CLASSIFIER: 10}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as the file of `nano.save`."""
    file = tmp_path_factory.mktemp("model") / "tiny.nanomodel"
    tiny_model().save(file)
    return file


# One test for all that builds: a second worker would build it again, and over the first.
def test_flashing_builds_checks_and_would_write_one_image(
    model: Path, firmware_build: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("firmware.__main__.IMAGES", tmp_path)
    monkeypatch.setattr(ports.list_ports, "comports", list)
    for name in CHIPS:
        ran = CliRunner().invoke(app, ["flash", name, str(model), "--dry-run", "--with", "esptool"])
        assert ran.exit_code == 0, ran.output
        merged = tmp_path / f"{name}.bin"
        assert "no board: no board is connected" in ran.output
        assert f"--chip {name} --port PORT write-flash 0x0 {merged}" in ran.output
        image.check(chip(name), merged, Commands())  # its bootloader
        _check_image(name, merged.read_bytes())

    _check_sizes(tmp_path)

    program = tmp_path / f"{CHIPS[0]}-program.bin"
    _check_refusals(program, tmp_path)
    table = tmp_path / "partitions.csv"
    table.write_text("factory, app, factory, 0x10000, 0x10000\n")
    monkeypatch.setattr(image, "PARTITIONS", table)
    with pytest.raises(
        ModelTooLarge, match=r"has \d{6} bytes, and its partition in .* has 65536: make the model"
    ):
        image.make(chip(CHIPS[0]), build.elf(chip(CHIPS[0])), tmp_path, Commands())
    table.write_text("heads, data, undefined, 0x10000, 0x7f0000\n")
    with pytest.raises(FirmwareError, match="does not fit in available flash size 4MB"):
        image.make(chip(CHIPS[0]), build.elf(chip(CHIPS[0])), tmp_path, Commands())


def _check_sizes(folder: Path) -> None:
    """Programs stay as small as they are, and say what they say without core::fmt."""
    nano = tiny_model()
    nano.export(folder / "tiny")
    motion = motion_model()
    motion.export(folder / "motion")
    facts = chip(CHIPS[0])
    programs = {Variant.SERVER: (build.elf(facts).read_bytes(), nano.image)}
    with pytest.raises(CommandFailed, match="no whole number of this sensor's samples"):
        build.build(facts, folder / "tiny", Commands(), Variant.MPU6050)
    for variant, name, image_ in (
        (Variant.MPU6050, "motion", motion.image),
        (Variant.CLASSIFIER, "tiny", nano.image),
    ):
        programs[variant] = build.build(facts, folder / name, Commands(), variant).read_bytes(), image_
    for variant, largest in PROGRAMS.items():
        program, image_ = programs[variant]
        size = firmware_size(program, image_)
        assert sum(size.crates.values()) == size.program <= largest, f"{variant}\n{size}"
        assert size.formatting <= FORMATTING[variant], f"{variant}\n{size}"
        assert ("torch_nano_device" in size.crates) == (variant is not Variant.CLASSIFIER)
        assert {"esp-hal", "nano-core"} <= {site.crate for site in panic_sites(program)}, "panics name a file"
        for machine in (build.ROOT, Path.home()):
            assert str(machine).encode() not in program, "a program is the same on each machine"


def _check_refusals(program: Path, folder: Path) -> None:
    """A damaged image is refused, and one of another chip."""
    with pytest.raises(ImageInvalid, match=r"checksum and hash for ESP32-C6; esptool says"):
        image.check(chip("esp32c6"), program, Commands())
    damaged = bytearray(program.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file = folder / "damaged.bin"
    file.write_bytes(damaged)
    with pytest.raises(ImageInvalid, match=r"checksum and hash for ESP32-C3; esptool says"):
        image.check(chip("esp32c3"), file, Commands())


def _check_image(name: str, flash: bytes) -> None:
    table = PartitionTable.from_binary(flash[0x8000:0x8C00])
    heads, program = table["heads"], next(table.find_by_type("app", "factory"))
    assert heads.offset + heads.size <= chip(name).flash
    assert len(flash) <= heads.offset, "writing the image keeps the heads"
    for offset in (image.bootloader_offset(chip(name)), program.offset):
        magic, identity = struct.unpack_from("<B11xH", flash, offset)
        assert (magic, identity) == (0xE9, CHIP_DEFS[name].IMAGE_CHIP_ID)

    # A kernel is linked with its operator's name. Short names can also come from elsewhere.
    nano = tiny_model()
    assert nano.image in flash
    names = {other for other in _native.operators() if len(other) >= 10}
    # The files of places that can panic are in folders of operators: conv2d_lines is in depthwise_conv2d's.
    without_model = re.sub(rb"src/ops/\w+", b"", flash.replace(nano.image, b""))
    assert not {other for other in names if other.encode() in without_model}
    assert b"conv2d" in without_model


def test_a_file_that_is_not_a_program_gives_no_flash_image(tmp_path: Path) -> None:
    program = tmp_path / "firmware"
    program.write_text("no program")
    with pytest.raises(CommandFailed, match="ELF"):
        image.make(chip("esp32c3"), program, tmp_path / "images", Commands())
    assert not list((tmp_path / "images").glob("*c3.bin"))


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
    nano, file = tn.to_nano(model, x, calibrate=x), tmp_path / "large.nanomodel"
    nano.save(file)
    with pytest.raises(ModelTooLarge, match=r"RAM"):  # before anything is compiled
        build.exported(file, chip("esp32c3"))
    nano.export(tmp_path)
    with pytest.raises(ModelTooLarge, match=r"- RAM: max_pool2d is at the peak of the arena with 800,000 B"):
        build.exported(tmp_path, chip("esp32c3"))
    sentence = r"ESP32-C3: the model needs (\d+) bytes of RAM \(arena (\d+), .*this chip has (\d+)"
    with pytest.raises(ModelTooLarge, match=sentence) as raised:
        build.build(chip("esp32c3"), tmp_path, Commands())
    found = re.search(sentence, str(raised.value))
    assert found
    needed, arena, available = map(int, found.groups())
    assert needed > arena >= 800 * 800 > available == chip("esp32c3").model_ram


def test_an_exported_model_is_its_folder_or_its_image(tmp_path: Path) -> None:
    tiny_model().export(tmp_path)
    assert build.exported(tmp_path) == build.exported(tmp_path / "model.nano") == tmp_path


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(ModelMissing, match=rf"no exported model in {missing}: nano.export\(folder\)"):
            build.exported(missing)
    with pytest.raises(CommandFailed, match=rf"no model for the firmware: {tmp_path}/model.rs: No such file"):
        build.build(chip("esp32c3"), tmp_path, Commands())
    (tmp_path / "model.nanomodel").write_bytes(b"no model")
    with pytest.raises(tn.errors.FileFormatError, match=r"model.nanomodel"):
        build.exported(tmp_path / "model.nanomodel")


def test_an_export_of_another_version_is_refused_before_it_is_compiled(tmp_path: Path) -> None:
    tiny_model().export(tmp_path)
    file = tmp_path / "model.nano"
    image_ = bytearray(file.read_bytes())
    image_[4] -= 1
    file.write_bytes(image_)
    with pytest.raises(tn.errors.FileFormatError, match=r"model\.nano: .*export the model again"):
        build.exported(tmp_path)


def test_a_model_alone_is_for_the_default_chip(tmp_path: Path) -> None:
    for name in ("flash", "build", "size"):
        ran = CliRunner().invoke(app, [name, str(tmp_path), *(["--dry-run"] if name == "flash" else [])])
        assert ran.exit_code == 1
        assert f"no exported model in {tmp_path}" in ran.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flash", "some/model", "esp32c3"], "some/model is no chip: the chip stands before the model"),
        (["flash", "esp32c4"], "there is no chip 'esp32c4'"),
        (["all", "esp32c3"], "no exported model in esp32c3, which is a chip"),
        (["monitor", "/dev/ttyUSB9"], "/dev/ttyUSB9 is no chip: a port is named by --port /dev/ttyUSB9"),
        (["board-test", "esp32c3"], "esp32c3 is a chip, not a port: board-test PORT --chip esp32c3"),
        (["board-test", "qemu", "esp32c3"], "no exported model in esp32c3, which is a chip"),
    ],
)
def test_an_argument_in_the_place_of_another_is_named(arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 1
    assert message in ran.output


def test_a_chip_for_which_nothing_builds_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match=r"does not build for the ESP32-S3: Xtensa needs"):
        build.build(chip("esp32s3"), tmp_path, Commands())
    ran = CliRunner().invoke(app, ["flash", "esp32s3", str(tmp_path), "--dry-run"])
    assert ran.exit_code == 1 and ran.output.startswith(
        "firmware: the firmware does not build for the ESP32-S3"
    )


def test_an_image_that_no_update_can_replace_is_told_before_it_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 2))
    x = torch.randn(32, 8)
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    nano.export(tmp_path)
    build.exported(tmp_path, chip("esp32c3"))
    numbers = (
        f"the image has {nano.flash_bytes:,} B, and a slot for updates {chip('esp32c3').update_room:,} B"
    )
    assert f"note: updates: {numbers}" in capsys.readouterr().out
    build.exported(tmp_path, chip("esp32c3"), Variant.CLASSIFIER)
    assert not capsys.readouterr().out
