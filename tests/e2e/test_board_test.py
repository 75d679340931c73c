"""`board-test` on the emulated board, which passes; a faulty board fails the check of its fault."""

from __future__ import annotations

import json
import os
import pty
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
import torch
import torch_nano as tn
from firmware import board_test
from firmware.__main__ import app
from firmware.board_test import HeadInFlash, NotRestarted
from firmware.boards import EmulatedBoard, SerialBoard
from firmware.errors import PortError
from firmware.ports import Port
from torch import nn
from torch_nano import Device
from torch_nano.device import SimulatedBoard
from typer.testing import CliRunner

from .tiny_model import tiny_model

SEED = 7
HEADS: dict[str, Callable[[], tn.heads.HeadSettings]] = {
    "sgd": tn.heads.SGD,
    "lda": tn.heads.LDA,
    "prototype": tn.heads.Prototype,
}


def model(head: tn.heads.HeadSettings | None, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    network, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(32, 6)
    if head is not None:
        tn.freeze(network, "0")
    return tn.to_nano(network, x, calibrate=x, head=head).image


@pytest.mark.parametrize("head", HEADS)
def test_the_emulated_board_passes_with_each_trainer(head: str, tmp_path: Path) -> None:
    image = model(HEADS[head]())
    board = EmulatedBoard(image, tmp_path / "flash")
    report = board_test.test(board, "qemu", image, seed=SEED)
    assert report, report
    assert [check.name for check in report.checks] == ["conformance", "speed", "learning", "power cuts"]
    assert "0 lost a head" in report.checks[3].details
    board.close()


def test_a_board_with_a_saved_head_is_left_alone(tmp_path: Path) -> None:
    image = model(tn.heads.SGD())
    board = EmulatedBoard(image, tmp_path / "flash")
    board.connect().save()
    with pytest.raises(HeadInFlash, match=r"has a saved head, which the test would replace\. Keep it with"):
        board_test.test(board, "qemu", image, seed=SEED)
    board.close()


def test_a_board_that_saves_by_itself_passes_and_does_so_again(tmp_path: Path) -> None:
    image = model(tn.heads.SGD())
    board = EmulatedBoard(image, tmp_path / "flash")
    device = board.connect()
    device.configure(save_interval=1)
    device.save()
    report = board_test.test(board, "qemu", image, seed=SEED, replace=True)
    assert report, report
    assert board.connect().settings.save_interval == 1
    board.close()


class AnotherModel(EmulatedBoard):
    """A board that computes other bytes."""

    def connect(self) -> Device:
        return Device(SimulatedBoard(model(tn.heads.SGD(), seed=1)))


class LosesItsFlash(EmulatedBoard):
    """A board that forgets all saves when its power is cut."""

    def cut_power(self) -> None:
        super().cut_power()
        self._flash.unlink()


def test_a_board_that_computes_other_bytes_fails(tmp_path: Path) -> None:
    image = model(tn.heads.SGD())
    board = AnotherModel(image, tmp_path / "flash")
    for check in board_test.conformance(board, image, SEED), board_test.learning(board, image, SEED):
        assert not check.passed, check
        assert ", 0 differ" not in check.details


def test_a_board_that_loses_its_saves_fails(tmp_path: Path) -> None:
    image = model(tn.heads.SGD())
    board = LosesItsFlash(image, tmp_path / "flash")
    check = board_test.power_cuts(board, image, SEED)
    assert not check.passed and f"{board_test.CUTS} lost a head; cut 1 after" in check.details
    board.close()


def test_a_model_without_a_head_is_tested_without_learning(tmp_path: Path) -> None:
    image = model(None)
    board = EmulatedBoard(image, tmp_path / "flash")
    report = board_test.test(board, "qemu", image, seed=SEED)
    assert report and [check.name for check in report.checks] == ["conformance", "speed"]

    # Its instruction counts are exact: another prediction is wrong.
    def twice(sample: board_test.Sample) -> list[int]:
        return [2 * ticks for ticks in report.layers]

    slow = board_test.test(board, "qemu", image, seed=SEED, predict=twice)
    board.close()
    assert not slow and slow.layers == report.layers
    assert [check.passed for check in slow.checks] == [True, False]
    assert slow.checks[1].details.endswith("0.500 times the prediction")


def test_the_command_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.__main__.REPORTS", tmp_path)
    tiny_model().export(tmp_path / "exported")
    ran = CliRunner().invoke(app, ["board-test", "qemu", str(tmp_path / "exported")])
    assert ran.exit_code == 0, ran.output
    [file] = tmp_path.glob("qemu-*.json")
    report = json.loads(file.read_text())
    assert report["predicted"] == report["layers"], "instructions are exact under the cycle model, too"
    assert report["passed"] and report["versions"]["torch_nano"] == tn.__version__
    assert str(file) in ran.output


class GoesOn(EmulatedBoard):
    """A board whose reset line has no effect."""

    def cut_power(self) -> None:
        pass


def test_a_board_that_does_not_restart_is_no_proof(tmp_path: Path) -> None:
    image = model(tn.heads.SGD())
    board = GoesOn(image, tmp_path / "flash")
    with pytest.raises(NotRestarted, match=r"QEMU rv32imc did not restart when its reset line was pulled"):
        board_test.power_cuts(board, image, SEED)
    board.close()


def test_a_board_on_a_serial_port_gives_the_same_bytes() -> None:
    image = model(tn.heads.SGD())
    near, far = pty.openpty()
    tty.setraw(far)
    with os.fdopen(near, "r+b", buffering=0) as end:
        other_end = threading.Thread(target=answer, args=(end, SimulatedBoard(image)))
        other_end.start()
        board = SerialBoard(Port(os.ttyname(far), False), image)
        for check in board_test.conformance(board, image, SEED), board_test.learning(board, image, SEED):
            assert check.passed, check
        with pytest.raises(PortError, match=rf"^{os.ttyname(far)} has no reset line \("):
            board.cut_power()
        os.close(far)
        other_end.join()


def answer(end: IO[bytes], device: SimulatedBoard) -> None:
    """A simulated device at one end of a serial line, until the other end is closed."""
    with suppress(OSError):
        while received := end.read(4096):
            device.write(received)
            with suppress(TimeoutError):  # it has nothing more to say
                while True:
                    end.write(device.read(4096))


def test_a_socket_has_no_reset_line() -> None:
    board = SerialBoard(Port("socket://host:3333", False), model(tn.heads.SGD()))
    with pytest.raises(PortError, match=r"socket://host:3333 has no reset line: connect the board by a"):
        board.cut_power()
