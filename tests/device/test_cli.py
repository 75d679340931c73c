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
from torch_nano.device.cli import app
from torch_nano.device.head_file import load_head, save_head
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
    nano.save(folder / "moves.nanomodel")
    nano.export(folder / "export")
    make(tn.heads.LDA(capacity=6)).save(folder / "lda.nanomodel")
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


def test_a_class_of_its_own(folder: Path, tmp_path: Path) -> None:
    """A class is added, learnt, forgotten; then the head is put back."""
    options = ["--model", folder / "lda.nanomodel", "--flash", tmp_path / "flash"]
    run("learn", "sim", folder / "train.csv", *options, "--save")
    told = run("add-class", "sim", "swim", *options, "--save")
    assert told == "class 4 is swim\nsaved: 2 in all\n"
    x = np.full((5, 24), 9, np.float32)
    np.savez(tmp_path / "swim.npz", x=x, y=np.array(["swim"] * 5))
    run("learn", "sim", tmp_path / "swim.npz", *options, "--save")
    assert "walk, run, rest, jump, swim" in run("info", "sim", *options)
    told = run("predict", "sim", tmp_path / "swim.npz", *options)
    assert told.endswith("5 of 5 right, 100.0 %\n") and told.startswith("4 swim  ")
    for name in ("swim", 4):
        assert run("forget", "sim", name, *options).startswith("forgot class 4\nnot saved: 'sim' forgets it")
    assert run("forget", "sim", "swim", *options, "--save") == "forgot class 4\nsaved: 4 in all\n"
    told = run("forget", "sim", "swin", *options, status=1)
    assert told.startswith("torch-nano: no class is called 'swin'; did you mean 'swim'?")
    assert run("reset", "sim", *options, "--save") == "reset\nsaved: 5 in all\n"
    run("read-head", "sim", tmp_path / "reset.head", *options)
    nano = tn.load(folder / "lda.nanomodel")
    assert load_head(tmp_path / "reset.head", nano.id) == nano.head.state()


def test_what_is_not_sure_enough_is_in_brackets(folder: Path, tmp_path: Path) -> None:
    options = ["--model", folder / "moves.nanomodel", "--flash", tmp_path / "flash"]
    run("learn", "sim", folder / "train.csv", *options, "--save")
    before = run("predict", "sim", folder / "train.csv", *options).splitlines()[:-1]
    sure = sorted({float(line.split()[-1]) for line in before})
    threshold = (sure[len(sure) // 2 - 1] + sure[len(sure) // 2]) / 2
    told = run("configure", "sim", *options, "--rejection", threshold, "--save-interval", 50, "--save")
    assert told.endswith("save interval 50\nsaved: 2 in all\n")
    told = run("info", "sim", *options)
    assert f"{threshold:.3g}"[:4] in told and "50" in told
    *lines, score = run("predict", "sim", folder / "train.csv", *options).splitlines()
    _, _, y = model_and_data()
    right = unsure = 0
    for line, old, label in zip(lines, before, y.tolist(), strict=True):
        known = float(old.split()[-1]) > threshold
        text, number = old.rsplit("  ", 1)
        assert line == (old if known else f"({text})  {number}")
        right += known and int(text.split()[0]) == label
        unsure += not known
    assert right > 0 and unsure > 0
    assert score == f"{right} of 40 right, {100 * right / 40:.1f} %, {unsure} not sure enough"
    assert "expected --rejection or --save-interval" in run("configure", "sim", *options, status=1)


def test_a_heads_file_is_for_one_model(folder: Path, tmp_path: Path) -> None:
    model, other = (["--model", folder / name] for name in ("moves.nanomodel", "lda.nanomodel"))
    nano = tn.load(folder / "moves.nanomodel")
    file = tmp_path / "a.head"
    told = run("read-head", "sim", file, *model)
    assert told == f"{file}: a head of {len(nano.head.state())} bytes\n"
    content = file.read_bytes()
    assert f"{file}: File exists" in run("read-head", "sim", file, *model, status=1)
    told = run("write-head", "sim", file, *other, status=1)
    assert f"{file} has a head of model {nano.id:08x}; expected one of model" in told
    for index in range(len(b"torch-nano head 1\n"), len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(tn.FileFormatError, match="its checksum is wrong"):
            load_head(file, nano.id)
    told = run("write-head", "sim", file, *model, status=1)
    assert "is damaged" in told
    for damaged_file, message in (
        (content[:20], "is damaged (20 bytes)"),
        (content + b"\0", "its checksum is wrong"),
        (content.replace(b"head 1\n", b"head 2\n"), "is a head's file of another version"),
        (nano.head.state(), "is no head's file; expected one that read-head or save_head wrote"),
        (b"", "is no head's file"),
    ):
        file.write_bytes(damaged_file)
        assert message in run("write-head", "sim", file, *model, status=1)


def test_errors_are_one_message(folder: Path, tmp_path: Path) -> None:
    model = ["--model", folder / "moves.nanomodel"]

    def error(*arguments: object) -> str:
        told = run(*arguments, status=1)
        assert told.startswith("torch-nano: ") and told.count("\n") == 1
        return told

    assert "no such port" in error("info", "/dev/ttyNANO9")
    assert "'sim' needs a model to run" in error("info", "sim")
    missing = tmp_path / "missing.nanomodel"
    assert error("info", "sim", "--model", missing) == f"torch-nano: {missing}: No such file or directory\n"
    assert error("info", "sim", "--model", tmp_path) == f"torch-nano: {tmp_path}: Is a directory\n"
    junk = tmp_path / "junk"
    junk.write_bytes(b"something else")
    assert str(junk) in error("info", "sim", "--model", junk)
    assert "there is nothing to train on" in error("train", "sim", *model)
    assert "there is nothing to take back" in error("undo", "sim", *model)
    assert "no head is saved on the device" in error("load", "sim", *model)
    assert "--save with 'sim' needs a file to save in: --flash FILE" in error(
        "reset", "sim", *model, "--save"
    )
    told = error("predict", "sim", folder / "train.npz", "--model", folder / "export/model.nano")
    assert "has floats; to turn them into the device's int8, --model must be" in told
    for name, text, message in (
        ("missing.csv", None, "missing.csv: No such file or directory"),
        ("a.csv", "label,a,b\nwalk,1,x\n", "a.csv, line 2: 'x' is no number"),
        ("a.csv", "a,b\n1,2\n", "has no labels; expected a column `label`; it has a, b"),
        ("a.csv", "label,a\nwalk,1\n", "a.csv: each sample has 1 elements; the model takes 24"),
        ("a.csv", f"label,{','.join(map(str, range(24)))}\nwolk{',0' * 24}\n", "did you mean 'walk'?"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert message in error("learn", "sim", tmp_path / name, *model)


def test_the_help_teaches() -> None:
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


def test_the_installed_script(folder: Path) -> None:
    script = Path(sys.executable).with_name("torch-nano")
    options = ["--model", folder / "moves.nanomodel"]
    done = subprocess.run([script, "device", "info", "sim", *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "moves" in done.stdout
    failed = subprocess.run([script, "device", "info", "nowhere"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("torch-nano: cannot open 'nowhere': no such port")
    assert torch.__version__ not in failed.stderr and failed.stderr.count("\n") == 1
