"""The command line with each kind of head: required arguments and printed texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from device.test_transports import LABELS, make, model_and_data
from torch_nano.cli.head_file import load_head, save_head

from .command_line import csv, run, write_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("cli"))


def test_a_class_is_added_and_learnt(folder: Path, tmp_path: Path) -> None:
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


def test_labels_with_several_right_classes_are_learnt(folder: Path, tmp_path: Path) -> None:
    _, x, y = model_and_data()
    right = torch.stack([y == 0, y % 2 == 1, y == 2, y == 1], 1)
    nano = make(tn.heads.SGD(0.05, loss="binary"))
    nano.save(tmp_path / "both.nanomodel")
    options = ["--model", tmp_path / "both.nanomodel", "--flash", tmp_path / "flash"]
    texts = [
        "|".join(name for name, is_right in zip(LABELS, row, strict=True) if is_right)
        for row in right.tolist()
    ]
    assert "run|jump" in texts
    run("learn", "sim", csv(tmp_path / "train.csv", texts), *options, "--epochs", 7, "--save")
    nano.head.fit(nano.features_int8(x), right, 7)
    told = run("predict", "sim", tmp_path / "train.csv", *options).splitlines()
    expected = nano.head.predict(nano.features_int8(x))
    for line, row in zip(told[:-1], expected.tolist(), strict=True):
        named = [f"{index} {name}" for index, name in enumerate(LABELS) if row[index]]
        assert line == (" | ".join(named) or "none")
    count = int((expected == right).all(1).sum())
    assert count > 0 and told[-1] == f"{count} of 40 right, {100 * count / 40:.1f} %"
    np.savez(tmp_path / "bools.npz", x=x.numpy(), y=right.numpy())
    assert run("predict", "sim", tmp_path / "bools.npz", *options).splitlines() == told


def test_labels_that_are_numbers_are_learnt(folder: Path, tmp_path: Path) -> None:
    model, x, y = model_and_data()
    one = tn.heads.SGD(0.02, loss="squared")
    nano = tn.to_nano(torch.nn.Sequential(*model[:-1], torch.nn.Linear(8, 1)), x, calibrate=x, head=one)
    nano.save(tmp_path / "one.nanomodel")
    options = ["--model", tmp_path / "one.nanomodel", "--flash", tmp_path / "flash"]
    given = csv(tmp_path / "train.csv", [str(label / 4) for label in y.tolist()])
    run("learn", "sim", given, *options, "--epochs", 7, "--save")
    nano.head.fit(nano.features_int8(x), y / 4, 7)
    *lines, score = run("predict", "sim", given, *options).splitlines()
    values = nano.head.predict(nano.features_int8(x))
    # Six digits are printed.
    assert [float(line) for line in lines] == pytest.approx(values.tolist(), rel=1e-5)
    errors = (values - y / 4).abs()
    _, _, mean, _, _, _, most, *_ = score.split()
    assert score == f"off by {mean} on average, by {most} at most"
    assert [float(mean), float(most)] == pytest.approx([errors.mean().item(), errors.max().item()], rel=1e-3)
    assert "line 2: 'walk' is no number" in run("learn", "sim", folder / "train.csv", *options, status=1)


def test_a_prediction_has_its_confidence_and_margin(folder: Path, tmp_path: Path) -> None:
    nano = tn.load(folder / "moves.nanomodel")
    _, x, y = model_and_data()
    assert isinstance(nano.head, tn.heads.SgdHead)
    nano.head.fit(nano.features_int8(x), y, 7)
    save_head(tmp_path / "a.head", nano.id, nano.head.state())
    options = ["--model", folder / "moves.nanomodel", "--flash", tmp_path / "flash"]
    run("write-head", "sim", tmp_path / "a.head", *options, "--save")
    made = nano.head.certainty(nano.features_int8(x))
    assert len(set(made.margin.tolist())) > 1
    expected = [
        f"  {confidence:.3f}  margin {margin:.3f}"
        for confidence, margin in zip(made.confidence.tolist(), made.margin.tolist(), strict=True)
    ]
    lines = run("predict", "sim", folder / "inputs.npz", *options).splitlines()
    assert [line[line.index("  ") :] for line in lines] == expected


def test_rejected_predictions_are_in_brackets(folder: Path, tmp_path: Path) -> None:
    options = ["--model", folder / "moves.nanomodel", "--flash", tmp_path / "flash"]
    run("learn", "sim", folder / "train.csv", *options, "--save")
    before = run("predict", "sim", folder / "train.csv", *options).splitlines()[:-1]
    sure = sorted({float(line.split("  ")[1]) for line in before})
    threshold = (sure[len(sure) // 2 - 1] + sure[len(sure) // 2]) / 2
    told = run("configure", "sim", *options, "--rejection", threshold, "--save-interval", 50, "--save")
    assert told.endswith("save interval 50\nsaved: 2 in all\n")
    told = run("info", "sim", *options)
    assert f"{threshold:.3g}"[:4] in told and "50" in told
    *lines, score = run("predict", "sim", folder / "train.csv", *options).splitlines()
    _, _, y = model_and_data()
    right = unsure = 0
    for line, old, label in zip(lines, before, y.tolist(), strict=True):
        text, confidence, margin = old.split("  ")
        known = float(confidence) > threshold
        assert line == (old if known else f"({text})  {confidence}  {margin}")
        right += known and int(text.split()[0]) == label
        unsure += not known
    assert right > 0 and unsure > 0
    assert score == f"{right} of 40 right, {100 * right / 40:.1f} %, {unsure} not sure enough"
    assert "expected --rejection or --save-interval" in run("configure", "sim", *options, status=1)


def test_a_head_file_fits_one_model_only(folder: Path, tmp_path: Path) -> None:
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
        with pytest.raises(tn.errors.FileFormatError, match="its checksum is wrong"):
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
