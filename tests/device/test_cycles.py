"""The cycle model of a chip under QEMU: what it counts of the board's own runs, and how it fails."""

from __future__ import annotations

import shutil
import subprocess
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import many_layers, one_layer
from torch import nn
from torch_nano import _native
from torch_nano.device.transport import cycles
from torch_nano.device.transport.cycles import Counts, CycleModel
from torch_nano.errors import CycleModelError

from device import rv32
from device.rv32 import A0, A1, S0, T0, T1, ZERO, add, addi, bne, c_nop, j, lui, lw, muldiv, sw

CODE, DATA = 0x8000_0000, 0x8010_0000
NOP = addi(ZERO, ZERO, 0)
#: A line and a way of the ESP32-C3's cache, in bytes.
LINE, WAY = 32, 2048
#: From a miss to the first word of the line, to the next word, and to the end of the line, in cycles.
FIRST, NEXT = 10 + 94.4, 31.7
WHOLE = FIRST + 7 * NEXT


def run(body: list[bytes], tmp_path: Path, *, code_in_flash: bool = False) -> Counts:
    """What the ESP32-C3's model counts of a program between two reads of the counter. The first read is the
    last instruction of the first line. Register s0 has the address of constants in flash.
    """
    before = [lui(S0, DATA), *[NOP] * 6, rv32.read_counter(T0)]
    stop = [lui(T0, 0x10_0000), lui(T1, 0x5000), addi(T1, T1, 0x555), sw(T1, 0, T0), j(0)]
    program = tmp_path / "program"
    program.write_bytes(b"".join([*before, *body, rv32.read_counter(T0), *stop]))
    model = CycleModel("esp32c3")
    flash = [(DATA, 1 << 20), *[(CODE, 1 << 20)] * code_in_flash]
    qemu = shutil.which("qemu-system-riscv32")
    assert qemu is not None
    machine = [qemu, "-machine", "virt", "-cpu", "lowrisc-ibex", "-m", "4M", "-bios", "none"]
    subprocess.run(
        [
            *(*machine, "-nodefaults", "-display", "none"),
            *("-device", f"loader,file={program},addr={CODE:#x},force-raw=on"),
            *model.options(flash),
        ],
        pass_fds=[model.file],
        check=True,
        timeout=60,
    )
    start, end = model.counts()
    model.close()
    return end - start


@pytest.mark.parametrize(
    ("body", "instructions", "more"),
    [
        pytest.param([NOP] * 3, 3, 0, id="nothing"),
        pytest.param([lw(A0, 0, S0), NOP, add(A1, A0, A0)], 3, FIRST, id="load, used later"),
        pytest.param([lw(A0, 0, S0), lw(A0, 0, S0), add(A1, A0, A0)], 3, FIRST + 1, id="load, used at once"),
        pytest.param([muldiv(0, A0, A1, A1)], 1, 0, id="mul"),
        pytest.param([muldiv(function, A0, A1, A1) for function in (1, 2, 3)], 3, 12, id="mulh"),
        pytest.param([muldiv(function, A0, A1, A1) for function in (4, 5, 6, 7)], 4, 80, id="div"),
        pytest.param([bne(ZERO, ZERO, 8), NOP], 2, 0, id="branch not taken"),
        pytest.param(
            [addi(T1, ZERO, 10), addi(T1, T1, -1), bne(T1, ZERO, -4), NOP], 22, 9 * 2, id="branch taken"
        ),
        pytest.param(
            [c_nop(), addi(T1, ZERO, 10), addi(T1, T1, -1), bne(T1, ZERO, -4), c_nop()],
            23,
            9 * 3,
            id="branch to an unaligned target",
        ),
        pytest.param([j(8), NOP, NOP], 2, 1, id="jump"),
        pytest.param([j(6), c_nop(), NOP, c_nop()], 3, 2, id="jump to an unaligned target"),
        pytest.param(
            [lw(A0, line * LINE, S0) for line in range(3)], 3, 2 * (WHOLE - 1) + FIRST, id="lines in a row"
        ),
        pytest.param([lw(A0, 0, S0), lw(A0, 28, S0)], 2, WHOLE - 1, id="the last word of a line"),
    ],
)
def test_small_programs_take_the_cycles_that_are_known_by_hand(
    body: list[bytes], instructions: int, more: float, tmp_path: Path
) -> None:
    counts = run(body, tmp_path)
    # The first read of the counter is one of them.
    assert counts.instructions == 1 + instructions
    assert counts.cycles == int(round(1 + instructions + more, 1))


def test_the_cache_replaces_the_line_that_came_first(tmp_path: Path) -> None:
    # All in one set, whose eight ways are full after the first eight.
    lines = [*range(8), 0, 8, 0, 1]
    loads = [(lui(A1, DATA + 2 * WAY * line), lw(A0, 0, A1)) for line in lines]
    # 0 was read again, and is still the oldest when 8 comes; then it replaces 1.
    assert run([*chain.from_iterable(loads)], tmp_path).data_lines == 8 + 0 + 1 + 1 + 1


def test_code_in_flash_comes_word_by_word_and_line_by_line(tmp_path: Path) -> None:
    counts = run([NOP] * 16, tmp_path, code_in_flash=True)
    # Each line is requested when the last instruction of the one before has ended.
    start, end = WHOLE - NEXT + 1, 3 * (WHOLE + 1)
    assert (counts.code_lines, counts.data_lines) == (2, 0)
    assert counts.cycles == int(round(end, 1)) - int(round(start, 1))
    # Of a loop in the cache only instructions count.
    loop = [addi(T1, ZERO, 100), addi(T1, T1, -1), bne(T1, ZERO, -4), *[NOP] * 13]
    looped = run(loop, tmp_path, code_in_flash=True)
    assert (looped.code_lines, looped.taken_branches) == (2, 99)


def counted(image: bytes, runs: int = 1) -> tuple[list[Counts], list[int]]:
    """The counts of each layer in the last of some runs, and its instructions as the board itself counts."""
    (input,) = _native.Model(image).inputs
    width = int(np.prod(_native.Model(image).values[input]["shape"]))
    with tn.device.QemuBoard(image, chip="esp32c3") as board:
        device = tn.Device(board)
        for _ in range(runs):
            board.restart_counts()
            ticks = device.profile(np.zeros(width, np.int8))
            reads = board.counts()
    return [end - start for start, end in zip(reads[::2], reads[1::2], strict=False)], ticks


def test_the_instructions_are_those_that_the_board_counts() -> None:
    for image in (one_layer(), many_layers()):
        counts, ticks = counted(image)
        assert [each.instructions for each in counts] == ticks


def test_the_counts_are_the_same_every_time_and_fall_once_the_cache_is_filled() -> None:
    first, _ = counted(many_layers())
    assert counted(many_layers())[0] == first
    second, _ = counted(many_layers(), runs=2)
    assert sum(each.cycles for each in second) < sum(each.cycles for each in first)


def test_a_board_without_a_chip_counts_no_cycles() -> None:
    with (
        tn.device.QemuBoard(one_layer()) as board,
        pytest.raises(tn.errors.BoardError, match="counts no cycles"),
    ):
        board.counts()


def test_a_chip_without_known_costs_is_refused() -> None:
    model = nn.Linear(4, 3)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    nano = tn.to_nano(model, x, calibrate=x)
    with pytest.raises(
        tn.errors.ChipError, match=r"the cycles of esp32c6 are not known.*known costs: esp32c3"
    ):
        nano.profile("esp32c6")
    with pytest.raises(tn.errors.ChipError, match="there is no chip 'esp32c4'"):
        nano.profile("esp32c4")
    with pytest.raises(tn.errors.ChipError, match="chip is None; expected one of"):
        nano.profile(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "printed",
    [
        "qemu-system-riscv32: -plugin: invalid option",
        "plugin requires API version 2, but this QEMU supports only a minimum version of 9",
    ],
)
def test_a_qemu_that_cannot_load_it_is_named(
    printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = tmp_path / "qemu-system-riscv32"
    qemu.write_text(f"#!/bin/sh\necho '{printed}' >&2\nexit 1\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CycleModelError, match=rf"needs QEMU 7\.2 or newer(.|\n)*{printed}"):
        tn.device.QemuBoard(one_layer(), chip="esp32c3")


def test_a_missing_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles, "_PLUGIN", tmp_path / "none.so")
    with pytest.raises(
        tn.errors.ConnectionFailed, match=r"the cycle model .*none\.so is missing.*just setup"
    ):
        tn.device.QemuBoard(one_layer(), chip="esp32c3")
    fit = tn.to_nano(nn.Linear(4, 3), torch.zeros(64, 4), calibrate=torch.randn(64, 4)).fits("esp32c3")
    assert fit and "none.so is missing" in fit.time_unknown


def test_a_path_with_a_comma_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "a,b.so"
    copy.write_bytes(cycles._PLUGIN.read_bytes())
    monkeypatch.setattr(cycles, "_PLUGIN", copy)
    assert counted(one_layer())[0][0].cycles > 0
