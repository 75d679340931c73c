"""The command line, as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch_nano.device.cli import app
from typer.testing import CliRunner

from .boards import Board, serial_board
from .test_transports import LABELS, make, model_and_data

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and data, as files."""
    folder = tmp_path_factory.mktemp("cli")
    _, x, y = model_and_data()
    nano = make(tn.heads.SGD(0.05))
    nano.save(folder / "moves.pt")
    nano.export(folder / "export")
    make(tn.heads.LDA()).save(folder / "lda.pt")
    np.savez(folder / "train.npz", x=x.numpy(), y=y.numpy())
    np.savez(folder / "int8.npz", x=nano.device_inputs(x), y=y.numpy())
    np.savez(folder / "inputs.npz", x=x.numpy())
    columns = [f"sample {index}" for index in range(24)]
    rows = [
        ",".join([LABELS[label], *map(repr, sample)])
        for label, sample in zip(y.tolist(), x.flatten(1).tolist(), strict=True)
    ]
    (folder / "train.csv").write_text("\n".join([",".join(["label", *columns]), *rows]) + "\n")
    return folder


def run(*arguments: object, status: int = 0) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in ("device", *arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


def twin(nano: tn.NanoModule, epochs: int) -> bytes:
    _, x, y = model_and_data()
    head = tn.heads.head_of(nano.image)
    assert isinstance(head, tn.SgdHead)
    head.fit(nano.features_int8(x), y, epochs)
    return head.state()


@pytest.mark.parametrize("data", ["train.npz", "train.csv"])
@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_session(folder: Path, tmp_path: Path, data: str, connection: str) -> None:
    options = ["--model", folder / "moves.pt", "--flash", tmp_path / "flash"]
    nano = tn.load(folder / "moves.pt")
    told = run("learn", connection, folder / data, *options, "--epochs", 7, "--save")
    assert "40 samples sent, 7 epochs" in told and "saved: 1 in all" in told
    assert f"{len(twin(nano, 7))} bytes" in run("read-head", connection, tmp_path / "a.head", *options)
    assert (tmp_path / "a.head").read_bytes() == twin(nano, 7)
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
    reset.write_bytes(nano.head.state())
    assert "saved: 2 in all" in run("write-head", connection, reset, *options, "--save")
    run("read-head", connection, tmp_path / "b.head", *options)
    assert (tmp_path / "b.head").read_bytes() == nano.head.state()
    assert "loaded save number 2" in run("load", connection, *options)
    assert "saved: 3 in all" in run("save", connection, *options)


def test_a_board_on_a_serial_port_keeps_what_it_learns_between_commands(folder: Path, tmp_path: Path) -> None:
    nano = tn.load(folder / "moves.pt")
    with serial_board(Board(nano.image)) as port:
        image = folder / "export/model.nano"
        run("learn", port, folder / "int8.npz", "--model", image, "--epochs", 2)
        assert "3 epochs" in run("train", port, "--epochs", 3)
        run("read-head", port, tmp_path / "a.head")
        run("undo", port)
        run("read-head", port, tmp_path / "b.head")
        told = run("stats", port)
        assert "learned" in told and "40" in told
    assert (tmp_path / "b.head").read_bytes() == twin(nano, 2)
    assert (tmp_path / "a.head").read_bytes() != twin(nano, 2)


def test_sums_are_committed(folder: Path, tmp_path: Path) -> None:
    options = ["--model", folder / "lda.pt", "--flash", tmp_path / "flash"]
    assert "committed" in run("learn", "sim", folder / "train.csv", *options, "--save")
    assert "committed" in run("commit", "sim", *options)


def test_errors_are_one_message(folder: Path, tmp_path: Path) -> None:
    model = ["--model", folder / "moves.pt"]

    def error(*arguments: object) -> str:
        told = run(*arguments, status=1)
        assert told.startswith("torch-nano: ") and told.count("\n") == 1
        return told

    assert "no such port" in error("info", "/dev/ttyNANO9")
    assert "'sim' needs a model to run" in error("info", "sim")
    missing = tmp_path / "missing.pt"
    assert error("info", "sim", "--model", missing) == f"torch-nano: {missing}: No such file or directory\n"
    junk = tmp_path / "junk"
    junk.write_bytes(b"NANO, but no more")
    assert "torch-nano: " in error("info", "sim", "--model", junk)
    junk.write_bytes(b"something else")
    assert str(junk) in error("info", "sim", "--model", junk)
    assert "there is nothing to train on" in error("train", "sim", *model)
    assert "there is nothing to take back" in error("undo", "sim", *model)
    assert "no head is saved on the device" in error("load", "sim", *model)
    assert "the head has 14 bytes" in error("write-head", "sim", junk, *model)
    assert f"{junk}: File exists" in error("read-head", "sim", junk, *model)
    assert "the client must know the model" in error(
        "predict", "sim", folder / "train.npz", "--model", folder / "export/model.nano"
    )
    assert "has no labels; expected an array `y`" in error("learn", "sim", folder / "inputs.npz", *model)
    for name, text, message in (
        ("a.txt", "", "ends in '.txt'; expected .npz or .csv"),
        ("a.npz", "junk", "is no .npz file"),
        ("a.csv", "", "has no sample"),
        (
            "a.csv",
            "label,a,b\nwalk,1,x\n",
            "line 2: could not convert string to float: 'x'; expected 2 numbers",
        ),
        ("a.csv", "label,a,b\nwalk,1\n", "line 2"),
        ("a.csv", "label,a\nwalk,1,2\n", "line 2 has more than 1 numbers"),
        ("a.csv", "label,a\nwalk,1\n", r"the input has shape [1, 1]"),
        (
            "a.csv",
            f"label,{','.join(map(str, range(24)))}\nwolk{',0' * 24}\n",
            "no class is called 'wolk'; did you mean 'walk'?",
        ),
    ):
        file = tmp_path / name
        file.write_text(text)
        assert message in error("learn", "sim", file, *model)
    arrays = tmp_path / "arrays.npz"
    for given, message in (
        ({"a": np.zeros(3)}, "has the arrays a; expected `x` and `y`"),
        ({"x": np.zeros(3)}, "x has shape [3]; expected [N, ...]"),
        ({"x": np.zeros((3, 24)), "y": np.zeros(2)}, "x has 3 samples, y the shape [2]; expected [N]"),
        ({"x": np.zeros((3, 24), np.int64), "y": np.zeros(3, int)}, "the input has dtype torch.int64"),
    ):
        np.savez(arrays, **given)
        assert message in error("learn", "sim", arrays, *model)


def test_the_help_teaches() -> None:
    told = run("--help")
    for word in ("CONNECTION", "/dev/ttyACM0", "socket://host:port", "learn sim train.csv", "label"):
        assert word in told
    for command in ("info", "predict", "learn", "train", "commit", "save", "load", "undo", "stats"):
        assert f"Example: torch-nano device {command}" in run(command, "--help")
    for command in ("read-head", "write-head"):
        assert f"Example: torch-nano device {command}" in run(command, "--help")


def test_the_installed_script(folder: Path) -> None:
    script = Path(sys.executable).with_name("torch-nano")
    options = ["--model", folder / "moves.pt"]
    done = subprocess.run([script, "device", "info", "sim", *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "moves" in done.stdout
    failed = subprocess.run([script, "device", "info", "nowhere"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("torch-nano: cannot open 'nowhere': no such port")
    assert torch.__version__ not in failed.stderr and failed.stderr.count("\n") == 1
