"""Modules on the emulated rv32imc board, and the sizes of its programs."""

from __future__ import annotations

import struct
import subprocess
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch_nano as tn
from torch import nn
from torch_nano.compile.optimization import Goal
from torch_nano.ir.precision import LayerDtype, Precision

ROOT = Path(__file__).resolve().parents[2]
BOARD_PROGRAM = ROOT / "python-plugin/src/torch_nano/device/virt-rv32imc.elf"
SEED = 0
#: The chip whose cycles are modelled.
CHIP = "esp32c3"


@dataclass(frozen=True)
class Cost:
    """What a model took on the board, and what its layers would take on a chip."""

    profile: tn.results.Profile
    #: Instructions of one run.
    run: int
    #: Instructions from the start of the board to its first request: the image is checked, its head loaded.
    load: int


@dataclass(frozen=True)
class Cycles:
    """What a layer or a model takes on the ESP32-C3, by its cycle model, in a run right after another one."""

    cycles: int
    #: Lines of code and constants that were read from the flash.
    flash_lines: int
    #: Those of constants.
    data_lines: int
    #: Cycles in which the core waited for them.
    flash_cycles: int
    load_use_stalls: int
    taken_branches: int


def cycles_of(counts: tn.device.Counts) -> dict[str, int]:
    """The fields of :class:`Cycles`, for what has more of its own."""
    return {each.name: getattr(counts, each.name) for each in fields(Cycles)}


@dataclass(frozen=True)
class CodeSize:
    """Bytes of code and constants."""

    name: str
    code_bytes: int


def to_nano(
    module: nn.Module,
    shape: tuple[int, ...],
    dtype: LayerDtype = "int8",
    *,
    optimize: Goal = "speed",
    weights_in_ram: int = 0,
) -> tn.NanoModule:
    """The module in integers, calibrated on random numbers, all its layers of a dtype."""
    example = torch.randn(16, *shape, generator=torch.Generator().manual_seed(SEED))
    with warnings.catch_warnings():
        # Random numbers are no typical inputs, and accuracy is not measured here.
        warnings.simplefilter("ignore", tn.TorchNanoWarning)
        # Modules of data movement alone have no layer that a dtype could be chosen for.
        precision: Precision | None = None if dtype == "int8" else {"": dtype}
        return tn.to_nano(
            module.eval(),
            example,
            calibrate=example,
            precision=precision,
            optimize=optimize,
            weights_in_ram=weights_in_ram,
            check=False,
        )


def measure(nano: tn.NanoModule) -> Cost:
    """What one run of the model and its loading cost.

    Raises:
        SystemExit: the board's bytes are not the host's.
    """
    x = torch.randn(1, *nano.input_shape, generator=torch.Generator().manual_seed(SEED + 1))
    (sent,) = nano.device_inputs(x)
    report = nano.verify("rv32imc", x)
    if not report:
        raise SystemExit(f"{nano.name}: {report}")
    with tn.Device(tn.device.QemuBoard(nano.image)) as device:
        load = device.stats().startup_ticks
        return Cost(nano.profile(CHIP, x), device.predict(sent).ticks, load)


def code_sizes() -> list[CodeSize]:
    """The board's program with all operators and trainers; and, with the kernels that every version has, the
    board's program and `Model::new` alone.
    """
    release = ROOT / "esp32-app/target/riscv32imc-unknown-none-elf/release"
    sizes = [CodeSize("board program, all kernels", code_bytes(BOARD_PROGRAM))]
    for name, what, file in (
        ("board program", ("--bin", "virt"), release / "virt"),
        ("Model::new", ("--example", "model_new"), release / "examples/model_new"),
    ):
        build = ["../tools/cross-cargo", "build", "--locked", "--release", "--target-dir", "target"]
        package = ["-p", "torch-nano-virt", "--features", "common-kernels"]
        subprocess.run([*build, *package, *what], cwd=ROOT / "esp32-app", check=True)
        sizes.append(CodeSize(name, code_bytes(file)))
    return sizes


def code_bytes(file: Path) -> int:
    """Bytes of an ELF program's first segment, which virt.ld makes of code and constants."""
    program = file.read_bytes()
    (offset,) = struct.unpack_from("<I", program, 28)
    loaded, _, _, _, size = struct.unpack_from("<5I", program, offset)
    assert loaded == 1, "the first program header is the code"
    return int(size)
