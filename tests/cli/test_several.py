"""The command line with a model of several inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from fusion import data, fusion
from torch_nano.cli.sample_files import SampleFileError, read_samples

from .command_line import run

COUNT = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, batch = tmp_path_factory.mktemp("several"), data(COUNT)
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    nano.save(folder / "fusion.nanomodel")
    nano.export(folder / "export")
    tn.to_nano(fusion("tensor"), batch, calibrate=batch, head="kind").save(folder / "head.nanomodel")
    arrays = {name: x.numpy() for name, x in batch.items()}
    np.savez(folder / "floats.npz", **arrays, y=np.arange(COUNT) % 5)
    integers = dict(zip(arrays, nano.device_inputs(**batch), strict=True))
    np.savez(folder / "integers.npz", **integers)
    np.savez(folder / "one.npz", motion=arrays["motion"])
    np.savez(folder / "apart.npz", motion=arrays["motion"], sound=arrays["sound"][:3])
    np.savez(folder / "short.npz", motion=arrays["motion"], sound=arrays["sound"][:, :3])
    (folder / "one.csv").write_text("a,b\n1,2\n")
    return folder


@pytest.mark.parametrize(
    ("file", "model"), [("floats.npz", "fusion.nanomodel"), ("integers.npz", "export/model.nano")]
)
def test_outputs_are_printed_by_name(folder: Path, file: str, model: str) -> None:
    lines = run("predict", "sim", folder / file, "-m", folder / model).splitlines()
    made = tn.load(folder / "fusion.nanomodel")(**data(COUNT))
    for line, kind, level in zip(lines, made["kind"], made["level"], strict=False):
        first, second = line.split("  ")
        name, *numbers = first.split()
        assert name == "kind:" and [float(x) for x in numbers] == pytest.approx(
            kind.tolist(), rel=1e-3, abs=1e-6
        )
        assert float(second.removeprefix("level: ")) == pytest.approx(float(level), rel=1e-3, abs=1e-6)
    assert len(lines) == COUNT + (file == "floats.npz")


def test_info_lists_inputs_and_outputs(folder: Path) -> None:
    told = run("info", "sim", "-m", folder / "fusion.nanomodel")
    for line in (
        "motion: 1 x 9 x 3 int8, scale 0.",
        "sound: 1 x 1 x 6 int8, scale",
        "kind: 1 x 1 x 5",
        "level: 1 x 1 x 1",
    ):
        assert line in told


def test_a_head_learns_from_a_file_of_two_inputs(folder: Path, tmp_path: Path) -> None:
    options = ["-m", folder / "head.nanomodel", "--flash", tmp_path / "flash"]
    assert "10 samples sent, 3 epochs" in run(
        "learn", "sim", folder / "floats.npz", *options, "--epochs", 3, "--save"
    )
    nano, batch = tn.load(folder / "head.nanomodel"), data(COUNT)
    assert isinstance(nano.head, tn.heads.SgdHead)
    nano.head.fit(nano.features_int8(**batch), torch.arange(COUNT) % 5, 3)
    lines = run("predict", "sim", folder / "floats.npz", *options).splitlines()
    assert [int(line.split()[0]) for line in lines[:-1]] == nano(**batch).argmax(1).tolist()


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("one.npz", "one.npz has the arrays motion; expected `motion` and `sound`, and `y` for labels"),
        (
            "one.csv",
            "one input; the model takes 2: expected an .npz file with arrays called motion, sound",
        ),
        ("apart.npz", "apart.npz: motion has 10 samples, sound the shape [3, 6]; expected [N, ...]"),
        ("short.npz", "short.npz: each sample of sound has 3 elements; the model takes 6"),
    ],
)
def test_other_files_are_refused(folder: Path, file: str, reason: str) -> None:
    told = run("predict", "sim", folder / file, "-m", folder / "fusion.nanomodel", status=1)
    assert reason in " ".join(told.split())


def test_an_input_called_y_leaves_the_labels_another_name(tmp_path: Path) -> None:
    x = np.zeros((3, 2), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=x, label=np.arange(3))
    table = read_samples(tmp_path / "a.npz", ["x", "y"])
    assert list(table.inputs) == ["x", "y"] and table.require_labels().tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=x, y=x)
    with pytest.raises(SampleFileError, match="expected an array `label`"):
        read_samples(tmp_path / "b.npz", ["x", "y"]).require_labels()
