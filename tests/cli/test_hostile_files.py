"""Damaged and hostile files on the command line: heads, tables, models, images and records."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_nano as tn
from device.test_recording import IMAGES, INPUTS
from device.test_transports import LABELS, make
from files_at_risk import killed_at_each_step, small_disk
from mutations import bytes_of, memory_for
from torch_nano.cli.head_file import load_head, save_head
from torch_nano.cli.labels import Labels
from torch_nano.cli.sample_files import SampleFileError, read_samples

from .command_line import run, write_files

SEED = 6
ROOM = 1 << 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


def read_labelled(path: Path) -> object:
    table = read_samples(path)
    return Labels("class", len(LABELS), LABELS).read(table) if table.labels is not None else None


@pytest.mark.parametrize(("name", "other"), [("train.csv", "train.npz"), ("train.npz", "int8.npz")])
def test_damaged_sample_files_are_refused(name: str, other: str, files: Path, tmp_path: Path) -> None:
    content, path = (files / name).read_bytes(), tmp_path / name
    refused = 0
    with memory_for(ROOM):
        for changed in bytes_of(content, (files / other).read_bytes(), count=150, seed=SEED):
            path.write_bytes(changed)
            try:
                read_labelled(path)
            except SampleFileError as error:
                assert str(path) in str(error) and len(str(error)) < 1500
                refused += 1
    assert refused > 300


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: Any, header: str | None = None) -> bytes:
    """An array as np.save writes it, or its numbers after another header."""
    if header is None:
        content = io.BytesIO()
        np.save(content, array)
        return content.getvalue()
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


def test_sample_files_that_would_take_much_memory_are_refused(tmp_path: Path) -> None:
    bomb = npz(tmp_path / "a.npz", {"x": npy(np.zeros((1, 1 << 28), np.float32)), "y": npy(np.zeros(1, int))})
    assert bomb.stat().st_size < 2 << 20
    with (
        memory_for(256 << 20),
        pytest.raises(SampleFileError, match=r"would take 107374\d+ in memory; at most"),
    ):
        read_samples(bomb)
    # numpy's own texts would take the room of the longest for each: 12 GB.
    long = tmp_path / "long.csv"
    long.write_text("a,label\n" + "1,b\n" * 30_000 + f"1,{'c' * 100_000}\n")
    with memory_for(256 << 20):
        assert read_samples(long).require_labels().tolist()[-2:] == ["b", "c" * 100_000]
    zeros = np.zeros(8, np.float32)
    for header in (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1099511627776)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 8}",
        "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 8)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 8)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1, 4)}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (1, 8)}",
        "[" * 110,
        "{'descr': " + "(" * 80,
        "\0",
    ):
        path = npz(tmp_path / "a.npz", {"x": npy(zeros, header)})
        with memory_for(ROOM), pytest.raises(SampleFileError, match=r"a\.npz"):
            read_samples(path)
    with pytest.raises(SampleFileError, match=r"compressed in another way than np\.savez_compressed does it"):
        read_samples(npz(tmp_path / "a.npz", {"x": npy(np.zeros((1, 8)))}, zipfile.ZIP_LZMA))
    by_columns = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    with pytest.raises(SampleFileError, match="arrays that nothing reads, other; expected only `x`"):
        read_samples(npz(tmp_path / "a.npz", {"x": npy(by_columns), "other": b"no array"}))
    table = read_samples(npz(tmp_path / "a.npz", {"x": npy(by_columns)}))
    assert table.inputs["x"].tolist() == by_columns.tolist()
    with pytest.raises(SampleFileError, match=r"has \d+ bytes or more; expected at most"):
        (tmp_path / "zero.csv").symlink_to("/dev/zero")
        read_samples(tmp_path / "zero.csv")


def test_damaged_head_files_are_refused(tmp_path: Path) -> None:
    nano, path = make(tn.heads.LDA(capacity=6)), tmp_path / "anna.head"
    assert nano.head is not None
    save_head(path, nano.id, nano.head.state())
    content, state = path.read_bytes(), nano.head.state()
    for changed in bytes_of(content, content[::-1], count=100, seed=SEED):
        path.write_bytes(changed)
        if changed != content:
            with pytest.raises(tn.errors.FileFormatError):
                nano.head.load(load_head(path, nano.id))
        assert nano.head.state() == state


def test_commands_refuse_damaged_files_with_one_line(files: Path, tmp_path: Path) -> None:
    """What is wrong with it is one line, and status 1."""
    record = ("predict", "sim", files / "inputs.npz", "-m")
    for name, command in (
        ("moves.nanomodel", lambda file: (*record, file)),
        ("export/model.nano", lambda file: ("info", "sim", "-m", file)),
        ("train.npz", lambda file: ("learn", "sim", file, "-m", files / "moves.nanomodel")),
        ("train.csv", lambda file: ("predict", "sim", file, "-m", files / "moves.nanomodel")),
    ):
        content = (files / name).read_bytes()
        file = tmp_path / Path(name).name
        for changed in [*bytes_of(content, content[::-1], count=3, seed=SEED), b"\xff" * 100, b"[" * 100_000]:
            file.write_bytes(changed)
            told = run_any(*command(file))
            assert told[0] in (0, 1), told
            assert told[0] == 0 or (told[1].count("\n") == 1 and told[1].startswith("torch-nano: ")), told


def run_any(*arguments: object) -> tuple[int, str]:
    for status in (1, 0):
        try:
            return status, run(*arguments, status=status)
        except AssertionError:
            continue
    raise AssertionError(f"another status, or a traceback: {arguments}")


def test_a_killed_command_leaves_no_half_head(tmp_path: Path) -> None:
    nano, path = make(tn.heads.SGD(0.05)), tmp_path / "anna.head"
    assert nano.head is not None
    state, seen = nano.head.state(), set()
    for _ in killed_at_each_step(lambda: save_head(path, nano.id, state)):
        seen.add(path.exists())
        assert not path.exists() or load_head(path, nano.id) == state
        path.unlink(missing_ok=True)
    assert seen == {False, True}


def test_a_killed_recording_can_be_replayed(tmp_path: Path) -> None:
    path, image = tmp_path / "device.record", IMAGES["lda"]
    steps = set()

    def session() -> None:
        with tn.Device("sim", nano=image) as device, tn.device.record(device, path):
            for sample in range(3):
                device.learn(INPUTS[sample], sample % 4)
            device.commit()

    for _ in killed_at_each_step(session):
        if path.exists():
            steps.add(tn.device.replay(path, image).steps)
            path.unlink()
    assert steps == {0, 1, 2, 3, 4}


def test_a_killed_simulated_device_keeps_a_whole_flash(tmp_path: Path) -> None:
    flash, image, saved = tmp_path / "flash", IMAGES["sgd"], set()

    def save() -> None:
        with tn.Device("sim", nano=image, flash=flash) as device:
            device.learn(INPUTS[0], 1)
            device.train(2)
            device.save()

    for _ in killed_at_each_step(save):
        with tn.Device("sim", nano=image, flash=flash) as device:
            saved.add(device.info.saved)
        flash.unlink()
    assert saved == {None, 1}


@pytest.mark.parametrize("write", [0, 1, 2], ids=["head", "model", "export"])
def test_a_full_disk_leaves_the_old_file(write: int, tmp_path: Path) -> None:
    nano = make(tn.heads.SGD(0.05))
    assert nano.head is not None
    state = nano.head.state()
    acts: list[Callable[[Path], object]] = [
        lambda path: save_head(path, nano.id, state),
        nano.save,
        nano.export,
    ]
    with small_disk(tmp_path, 16 << 10) as mounted:
        if not mounted:
            pytest.skip("only root can make a small disk")
        (tmp_path / "filler").write_bytes(b"x" * (12 << 10))
        with pytest.raises(OSError, match="No space left on device"):
            for number in range(20):
                acts[write](tmp_path / f"{number}")
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or (path.stat().st_size > 0 and not path.name.startswith(".torch_nano-"))
