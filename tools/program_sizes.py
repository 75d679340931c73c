"""Measures the size of the firmware, and writes the table by which `fits` predicts it: `just program-sizes`.

The firmware is linked for an ESP32-C3 with all kernels, once for each trainer; what each kernel adds is found
in its object file (linked_code.py). How deep the stack goes is seen on the emulated board (painted_stack.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch_nano as tn
from firmware.build import elf, features, program_name
from linked_code import Linked, Program, section_sizes, static_size
from painted_stack import PaintedBoard
from torch import nn
from torch_nano import _native
from torch_nano.chips import chip
from torch_nano.fits.program import LINKED_FOR
from torch_nano.fits.variant import Variant

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "python-plugin/src/torch_nano/fits/program.toml"
RELEASE = ROOT / "esp32-app/target/riscv32imc-unknown-none-elf/release"
#: Sections that hold code or data in RAM, and whose contents are also in flash.
_IN_RAM = (".trap", ".rwtext", ".data")
#: The static cells of the firmware for its model, and their alignment: a cell begins with a flag.
_MODEL_STATICS = {"RAM_WORDS": 4, "MEMORY": 16, "WINDOW": 1, "FEATURES": 1, "SAMPLE": 4}
_HEADS: dict[str, dict[str, object]] = {
    "NoHead": {"head": None},
    "SgdHead": {"head": tn.heads.SGD(0.05)},
    "LayersHead": {"head": tn.heads.SGD(0.05), "train_last": 2},
    "LdaHead": {"head": tn.heads.LDA()},
    "PrototypeHead": {"head": tn.heads.Prototype()},
}


def all_kernels() -> list[str]:
    """The names of all kernels."""
    return [kernel for operator in _native.operators().values() for kernel in operator["kernels"]]


def small_model(head: str) -> tn.NanoModule:
    """A model with a head of this class; its input is whole samples of each sensor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(480, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    tn.freeze(model, "0")
    x = torch.randn(64, 480)
    return tn.to_nano(model, x, calibrate=x, check=False, **_HEADS[head])  # type: ignore[arg-type]


def convolution() -> tn.NanoModule:
    """A model without a head whose run takes other kernels than the small model's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    x = torch.randn(64, 3, 20)
    return tn.to_nano(model, x, calibrate=x, check=False)


def build(model: Path, variant: Variant = Variant.SERVER) -> Path:
    """Builds a firmware with an exported model, and its object file; returns the program.

    Raises:
        CalledProcessError: it does not build.
    """
    command = ["../tools/cross-cargo", "rustc", "--locked", "--release", "-p", "torch-nano-firmware"]
    enabled = ",".join(["esp32c3", *features(variant)])
    environment = {**os.environ, "TORCH_NANO_MODEL": str(model)}
    subprocess.run(
        [
            *(*command, "--no-default-features", "--features", enabled),
            *("--bin", program_name(variant), "--", "--emit=obj,link"),
        ],
        cwd=ROOT / "esp32-app",
        env=environment,
        check=True,
    )
    return elf(chip(LINKED_FOR), variant)


def linked_code_bytes(program: Path, image: int) -> int:
    """Bytes of code and constants of a firmware in flash, without the image of this length."""
    sizes = section_sizes(program)
    return sum(sizes.get(name, 0) for name in (".text", ".rodata", *_IN_RAM)) - image


def linked_ram_bytes(program: Path) -> int:
    """Bytes of RAM that a firmware takes for itself, without the model's and the stack."""
    sizes = section_sizes(program)
    return sum(sizes.get(name, 0) for name in (*_IN_RAM, ".bss")) - linked_model_ram_bytes(program)


def linked_model_ram_bytes(program: Path) -> int:
    """Bytes of RAM that a firmware has for its model, with the window and the sample of a sensor."""
    return sum(model_statics(program).values())


def model_statics(program: Path) -> dict[str, int]:
    """Bytes of the static cells that a firmware has for its model, by name, without their flags."""
    return {
        name: size - alignment
        for name, alignment in _MODEL_STATICS.items()
        if (size := static_size(program, name))
    }


def stack_bytes(nano: tn.NanoModule) -> int:
    """How deep the stack goes when the emulated board loads a model, runs it, and learns."""
    board = PaintedBoard(nano.image)
    with tn.Device(board, nano=nano) as device:
        x = torch.randn(3, *nano.input_shape)
        device.predict(x[0])
        if nano.head is not None:
            device.fit(x, torch.arange(3))
            device.save()
        return board.high_water()


def measure() -> str:
    """The text of the table."""
    kernels = all_kernels()
    programs: dict[Variant, list[str]] = {variant: [] for variant in Variant}
    groups: dict[frozenset[str], Linked] = {}
    samples: dict[Variant, int] = {}
    entry, stack = 0, stack_bytes(convolution())
    for head in _HEADS:
        nano = small_model(head)
        stack = max(stack, stack_bytes(nano))
        with tempfile.TemporaryDirectory() as folder:
            nano.export(folder)
            _name_kernels(Path(folder) / "model.rs", kernels)
            for variant in Variant:
                program = build(Path(folder), variant)
                objects = RELEASE.glob(f"deps/{program.name}-*.o")
                linked = Program(max(objects, key=lambda file: file.stat().st_mtime), program, kernels)
                own = linked.groups()
                if (head, variant) == ("NoHead", Variant.SERVER):
                    groups, entry = own, linked.entry
                of_kernels = sum(own.values(), Linked(linked.entry * len(kernels)))
                code = linked_code_bytes(program, nano.flash_bytes) - of_kernels.flash
                ram = linked_ram_bytes(program) - of_kernels.ram
                programs[variant].append(f"{head} = {{ code = {code}, ram = {ram} }}")
                if variant.senses:
                    samples[variant] = model_statics(program)["SAMPLE"]
    return "\n".join(_lines(programs, samples, groups, entry, stack))


def _name_kernels(module: Path, kernels: list[str]) -> None:
    """Makes an exported module name these kernels instead of its model's."""
    table = "".join(f"    nano_core::ops::{kernel.upper()},\n" for kernel in kernels)
    text, count = re.subn(
        r"(pub static KERNELS: [^=]* = &\[\n)[^\]]*", lambda found: found[1] + table, module.read_text()
    )
    assert count == 1, "an exported module has one table of kernels"
    module.write_text(text)


def _lines(
    programs: dict[Variant, list[str]],
    samples: dict[Variant, int],
    groups: dict[frozenset[str], Linked],
    entry: int,
    stack: int,
) -> Iterator[str]:
    yield "# Written by `just program-sizes`; do not edit. Bytes of the firmware as linked for an ESP32-C3:"
    yield "#"
    yield "#   kernel_entry: of a kernel in the table of kernels"
    yield "#   stack: how deep the emulated board goes while it loads, runs, learns and saves"
    yield "#   sample: the latest sample of a sensor, in RAM"
    yield "#   programs: without kernels, by variant and trainer: code and constants in flash, all in RAM"
    yield "#   code: what a program links that has one of these kernels, in flash, and of that also in RAM"
    yield ""
    yield f"kernel_entry = {entry}"
    yield f"stack = {stack}"
    yield ""
    yield "[sample]"
    yield from (f"{variant} = {size}" for variant, size in samples.items())
    for variant, lines in programs.items():
        yield ""
        yield f"[programs.{variant}]"
        yield from lines
    for names, linked in sorted(groups.items(), key=lambda group: (len(group[0]), sorted(group[0]))):
        yield ""
        yield "[[code]]"
        yield f"flash = {linked.flash}"
        if linked.ram:
            yield f"ram = {linked.ram}"
        listed = ", ".join(f'"{name}"' for name in sorted(names))
        yield f"kernels = [{listed}]"
    yield ""


def main() -> int:
    warnings.simplefilter("ignore", tn.TorchNanoWarning)
    TABLE.write_text(measure())
    print(f"written to {TABLE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
