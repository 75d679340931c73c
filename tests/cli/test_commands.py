"""The command line, as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
import typer
from device.boards import Board, serial_board
from device.test_transports import LABELS, model_and_data
from torch_nano.cli.head_file import load_head, save_head
from torch_nano_cli.main import app

from .command_line import run, write_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("cli"))


def twin(nano: tn.NanoModule, epochs: int) -> bytes:
    _, x, y = model_and_data()
    head = tn.heads.head_of(nano.image)
    assert isinstance(head, tn.heads.SgdHead)
    head.fit(nano.features_int8(x), y, epochs)
    return head.state()


@pytest.mark.parametrize("data", ["train.npz", "train.csv"])
@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_session_learns_saves_and_predicts(
    folder: Path, tmp_path: Path, data: str, connection: str
) -> None:
    options = ["--model", folder / "moves.nanomodel", "--flash", tmp_path / "flash"]
    nano = tn.load(folder / "moves.nanomodel")
    told = run("learn", connection, folder / data, *options, "--epochs", 7, "--save")
    assert "40 samples sent, 7 epochs" in told and "saved: 1 in all" in told
    assert f"{len(twin(nano, 7))} bytes" in run("read-head", connection, tmp_path / "a.head", *options)
    assert load_head(tmp_path / "a.head", nano.id) == twin(nano, 7)
    told = run("info", connection, *options)
    for fact in ("moves", f"{nano.id:08x}", "walk, run, rest, jump", "restored"):
        assert fact in told
    lines = run("predict", connection, folder / data, *options).splitlines()
    assert len(lines) == 41
    nano.head.load(twin(nano, 7))
    _, x, y = model_and_data()
    expected = nano(x).argmax(1)
    assert [int(line.split()[0]) for line in lines[:-1]] == expected.tolist()
    assert lines[0].split()[1] == LABELS[expected[0]]
    right = int((expected == y).sum())
    assert lines[-1] == f"{right} of 40 right, {100 * right / 40:.1f} %"
    assert len(run("predict", connection, folder / "inputs.npz", *options).splitlines()) == 40
    nano.head.reset()
    reset = tmp_path / "image.head"
    save_head(reset, nano.id, nano.head.state())
    assert "saved: 2 in all" in run("write-head", connection, reset, *options, "--save")
    run("read-head", connection, tmp_path / "b.head", *options)
    assert load_head(tmp_path / "b.head", nano.id) == nano.head.state()
    assert "loaded save number 2" in run("load", connection, *options)
    assert "saved: 3 in all" in run("save", connection, *options)


def test_a_board_on_a_serial_port_keeps_what_it_learns_between_commands(folder: Path, tmp_path: Path) -> None:
    nano = tn.load(folder / "moves.nanomodel")
    with serial_board(Board(nano.image)) as port:
        image = folder / "export/model.nano"
        run("learn", port, folder / "int8.npz", "--model", image, "--epochs", 2)
        assert "3 epochs" in run("train", port, "--epochs", 3)
        run("read-head", port, tmp_path / "a.head")
        run("undo", port)
        run("read-head", port, tmp_path / "b.head")
        told = run("stats", port)
        assert "learned" in told and "40" in told
    assert load_head(tmp_path / "b.head", nano.id) == twin(nano, 2)
    assert load_head(tmp_path / "a.head", nano.id) != twin(nano, 2)


def test_sums_are_committed(folder: Path, tmp_path: Path) -> None:
    options = ["--model", folder / "lda.nanomodel", "--flash", tmp_path / "flash"]
    assert "committed" in run("learn", "sim", folder / "train.csv", *options, "--save")
    assert "committed" in run("commit", "sim", *options)


def test_errors_are_one_line(folder: Path, tmp_path: Path) -> None:
    model = ["--model", folder / "moves.nanomodel"]

    def error(*arguments: object) -> str:
        told = run(*arguments, status=1)
        assert told.startswith("torch-nano: ") and told.count("\n") == 1
        return told

    assert "no such port" in error("info", "/dev/ttyNANO9")
    assert "'sim' needs a model to run" in error("info", "sim")
    missing = tmp_path / "missing.nanomodel"
    assert f"{missing}: there is no such file" in error("info", "sim", "--model", missing)
    assert error("info", "sim", "--model", tmp_path) == f"torch-nano: {tmp_path}: Is a directory\n"
    junk = tmp_path / "junk"
    junk.write_bytes(b"something else")
    assert str(junk) in error("info", "sim", "--model", junk)
    assert "there is nothing to train on" in error("train", "sim", *model)
    assert "there is nothing to take back" in error("undo", "sim", *model)
    assert "no head is saved on the device" in error("load", "sim", *model)
    told = error("configure", "sim", *model, "--rejection", 1.5)
    assert "rejection is 1.5; expected a probability, 0 to 1" in told
    told = error("configure", "sim", *model, "--save-interval", -1)
    assert "save_interval is -1; expected a whole number, 0 to 4294967295" in told
    assert "--save with 'sim' needs a file to save in: --flash FILE" in error(
        "reset", "sim", *model, "--save"
    )
    told = error("predict", "sim", folder / "train.npz", "--model", folder / "export/model.nano")
    assert "has floats; to turn them into the device's int8, --model must be" in told
    for name, text, message in (
        ("missing.csv", None, "missing.csv: there is no such file"),
        ("a.csv", "label,a,b\nwalk,1,x\n", "a.csv, line 2: 'x' is no number"),
        ("a.csv", "a,b\n1,2\n", "has no labels; expected a column `label`; it has a, b"),
        ("a.csv", "label,a\nwalk,1\n", "a.csv: each sample has 1 elements; the model takes 24"),
        ("a.csv", f"label,{','.join(map(str, range(24)))}\nwolk{',0' * 24}\n", "did you mean 'walk'?"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert message in error("learn", "sim", tmp_path / name, *model)


def test_the_help_shows_a_first_session() -> None:
    told = run("--help")
    for word in ("CONNECTION", "/dev/ttyACM0", "socket://host:port", "learn sim train.csv", ".nanomodel"):
        assert word in told
    assert max(map(len, told.splitlines())) <= 80
    commands = typer.main.get_command(app).commands["device"].commands
    assert {"add-class", "forget", "reset", "configure", "undo"} < set(commands)
    for command in commands:
        assert command in told
        own = run(command, "--help")
        assert f"Usage: torch-nano device {command} [OPTIONS] CONNECTION" in own
        assert f"Example: torch-nano device {command} /dev/ttyACM0" in own
        assert "A serial port, socket://host:port, sim or qemu." in own
        assert max(map(len, own.splitlines())) <= 80


def test_the_installed_script_runs(folder: Path) -> None:
    script = Path(sys.executable).with_name("torch-nano")
    options = ["--model", folder / "moves.nanomodel"]
    done = subprocess.run([script, "device", "info", "sim", *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "moves" in done.stdout
    failed = subprocess.run([script, "device", "info", "nowhere"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("torch-nano: cannot open 'nowhere': no such port")
    assert torch.__version__ not in failed.stderr and failed.stderr.count("\n") == 1


def test_it_prints_its_version() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from torch_nano_cli.main import main; main()", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"torch-nano {tn.__version__}\n"


def test_files_give_the_indices_of_an_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(40, (64, 3))
    model = torch.nn.Sequential(torch.nn.Embedding(40, 4), torch.nn.Flatten(), torch.nn.Linear(12, 5))
    nano = tn.to_nano(model, ids, calibrate=ids, head=None)
    nano.export(tmp_path)
    np.savez(tmp_path / "ids.npz", x=ids.numpy())
    for name, first in (("whole.csv", "39"), ("half.csv", "0.5")):
        (tmp_path / name).write_text(f"a,b,c\n{first},0,7\n")
    lines = run("predict", "sim", tmp_path / "ids.npz", "-m", tmp_path / "model.nano").splitlines()
    assert [int(line.split()[0]) for line in lines] == nano(ids).argmax(1).tolist()
    (line,) = run("predict", "sim", tmp_path / "whole.csv", "-m", tmp_path / "model.nano").splitlines()
    assert int(line.split()[0]) == int(nano(torch.tensor([[39, 0, 7]])).argmax())
    told = run("predict", "sim", tmp_path / "half.csv", "-m", tmp_path / "model.nano", status=1)
    assert "half.csv, line 2 has numbers that are not whole; expected indices" in " ".join(told.split())
