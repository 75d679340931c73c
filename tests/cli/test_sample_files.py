"""Sample files, and how a head's trainer reads their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_nano as tn
from torch_nano.cli.labels import Labels
from torch_nano.cli.sample_files import SampleFile, SampleFileError, read_samples

NAMES = ["walk", "run", "rest"]


def csv(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def npz(folder: Path, **arrays: Any) -> Path:
    file = folder / "a.npz"
    np.savez(file, **arrays)
    return file


def labels(target: str, file: Path, names: list[str] = NAMES) -> list[Any]:
    return Labels(target, len(names), names).read(read_samples(file))


@pytest.mark.parametrize(
    "content",
    [
        "label,a,b\nwalk,1,-2.5\nrun,3e2,4\n",
        "\ufefflabel,a,b\nwalk,1,-2.5\nrun,3e2,4\n",
        "label;a;b\r\nwalk;1;-2.5\r\nrun;3e2;4\r\n",
        "label\ta\tb\nwalk\t1\t-2.5\nrun\t3e2\t4",
        'a, label ,"b"\n1, walk , -2.5\n\n3e2,"run",4\n',
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "A.CSV"])
def test_one_sample_file_can_be_written_in_several_ways(tmp_path: Path, content: str, name: str) -> None:
    table = read_samples(csv(tmp_path, content, name))
    assert table.inputs["x"].dtype == np.float32
    assert table.inputs["x"].tolist() == [[1, -2.5], [300, 4]]
    assert table.require_labels().tolist() == ["walk", "run"]


def test_a_sample_file_may_lack_labels(tmp_path: Path) -> None:
    for file in (csv(tmp_path, "a,b\n1,2\n"), npz(tmp_path, x=np.zeros((1, 2)))):
        table = read_samples(file)
        assert table.labels is None and table.inputs["x"].shape == (1, 2)
        with pytest.raises(SampleFileError, match="has no labels; expected"):
            table.require_labels()
    with pytest.raises(SampleFileError, match=r"expected a column `label`; it has 0, 1, 2, 3, 4, 5, \.\.\."):
        read_samples(csv(tmp_path, "0,1,2,3,4,5,6,7\n0,0,0,0,0,0,0,0\n")).require_labels()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv has no sample"),
        ("label,a\n", "a.csv has no sample"),
        ("label,a,b\nwalk,1,x\n", "a.csv, line 2: 'x' is no number"),
        ("label,a,b\nwalk,1,2\n\nwalk,1,\n", "a.csv, line 4: '' is no number"),
        ("label,a,b\nwalk,1\n", "line 2 has 2 fields; expected 3, one for each name"),
        ("label,a\nwalk,1,2\n", "line 2 has 3 fields; expected 2"),
        ("label;a\nwalk;0,5\n", "line 2: '0,5' is no number: decimals take a point"),
        ("label,a\nwalk,1\nwalk,nan\n", "line 3 has NaN or infinity"),
        ("label,a\nwalk,1e39\n", "line 2 has NaN or infinity"),
        (
            "0.5,0.5,walk\n1,2,walk\n",
            "line 1 has 0.5, 0.5, walk, which is a sample; expected the columns'",
        ),
        (
            "1,2,walk\n1,2,run\n",
            "line 2: 'run' is no number; of a label, line 1 must call its column `label`",
        ),
        ("label,a,a\nwalk,1,2\n", "has two columns called 'a'; expected different names"),
        ("label,label\nwalk,1\n", "has two columns called 'label'"),
        ("label,a\nwalk," + "9" * 200_000, "line 2: field larger than field limit"),
        ('label,a\n"walk,1\nrun,2\n', "unexpected end of data; is a quotation mark missing?"),
        ("label,a\nwalk," + "x" * 200, "'" + "x" * 40 + "...' is no number"),
        ("label,a\nläuft,1\n".encode("latin-1"), "is no UTF-8 text (its byte 9 is 0xe4); save it as UTF-8"),
        ("label,a\nwalk,1\n".encode("utf-16"), "is no UTF-8 text (its byte 0 is 0xff); save it as UTF-8"),
        ("label,a\nwalk,1\n".encode("utf-16-le"), "has bytes of 0, which no UTF-8 text has"),
    ],
)
def test_wrong_csv_files_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SampleFileError) as error:
        read_samples(csv(tmp_path, content))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no array; expected `x`, and `y` for labels"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "has the arrays a, b; expected `x`, and `y` for labels"),
        (
            {"x": np.zeros((3, 2)), "z": np.zeros(3), "label": np.zeros(3)},
            "has arrays that nothing reads, label, z; expected only `x`, and `y` for labels",
        ),
        ({"x": np.zeros(3)}, "x has shape [3]; expected [N, ...]"),
        ({"x": np.zeros((0, 3))}, "has no sample"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "x has 3 samples, y the shape [2]; expected [N]"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(())}, "x has 3 samples, y the shape []; expected [N]"),
        (
            {"x": np.zeros((3, 2), np.uint8)},
            "x has dtype uint8; expected floats, indices, or the device's int8",
        ),
        ({"x": np.array([["a"]])}, "x has dtype <U1"),
        ({"x": np.array([[0.0], [np.inf]])}, "sample 1 (from 0) has NaN or infinity"),
        ({"x": np.zeros((1, 2)), "y": np.array(["walk"], object)}, "arrays of Python objects are not read"),
        (
            {"x": np.zeros((1, 2)), "y": np.array([0x110000], np.uint32).view("<U1")},
            "array 'y' has 0x110000 among its texts, which is no character",
        ),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleFileError) as error:
        read_samples(npz(tmp_path, **arrays))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    whole = npz(tmp_path, x=np.arange(8.0).reshape(4, 2)).read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(np.float64(3).tobytes())] ^= 0xFF
    np.save(tmp_path / "array.npy", np.zeros((3, 2)))
    (tmp_path / "array.npz").write_bytes((tmp_path / "array.npy").read_bytes())
    for name, content, message in (
        ("array.npy", None, "holds one array (.npy); expected an .npz file: np.savez("),
        ("array.npz", None, "holds one array (.npy); expected an .npz file: np.savez("),
        ("a.npz", b"junk", "is no .npz file, or damaged"),
        ("a.npz", whole[:200], "is no .npz file, or damaged"),
        ("a.npz", bytes(damaged), "array 'x': Bad CRC-32"),
        ("a.txt", b"", "ends in '.txt'; expected .npz or .csv"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SampleFileError) as error:
            read_samples(tmp_path / name)
        assert message in str(error.value)
    for file in (csv(tmp_path, "label\nwalk\n"), npz(tmp_path, x=np.zeros((1, 0)))):
        assert read_samples(file).inputs["x"].shape == (1, 0)  # which no model takes
    with pytest.raises(FileNotFoundError):
        read_samples(tmp_path / "missing.csv")


def test_a_class_is_its_name_before_it_is_an_index(tmp_path: Path) -> None:
    file = csv(tmp_path, "label,a\n1,0\n2,0\n")
    assert labels("class", file, ["1", "2", "3"]) == [0, 1]
    assert labels("class", file, ["2", "1"]) == [1, 0]
    assert labels("class", file, NAMES) == [1, 2]
    assert labels("class", file, ["", "", ""]) == [1, 2]
    with pytest.raises(SampleFileError, match=r"line 2: no class is called '1'; the classes are 2, 3$"):
        labels("class", file, ["2", "3"])
    with pytest.raises(SampleFileError, match=r"line 2: no class is called '1'; the classes are a, 2$"):
        labels("class", file, ["a", "2"])
    with pytest.raises(SampleFileError, match="line 3: there is no class 2; expected 0 to 1"):
        labels("class", file, ["a", "b"])
    assert labels("class", csv(tmp_path, f"label,a\nrest,0\n{'0' * 5000}1,0\n")) == [2, 1]
    with pytest.raises(SampleFileError, match=r"line 2: there is no class '9+\.\.\.; expected 0 to 2$"):
        labels("class", csv(tmp_path, f"label,a\n{'9' * 5000},0\n"))
    with pytest.raises(SampleFileError, match="line 2: no class is called 'wlak'; did you mean 'walk'"):
        labels("class", csv(tmp_path, "label,a\nwlak,0\n"))
    x = np.zeros((2, 1))
    assert labels("class", npz(tmp_path, x=x, y=np.array([1, 2])), ["1", "2", "3"]) == [1, 2]
    assert labels("class", npz(tmp_path, x=x, y=np.array(["1", "2"])), ["1", "2", "3"]) == [0, 1]


def test_labels_may_name_several_right_classes(tmp_path: Path) -> None:
    file = csv(tmp_path, 'label,a\nwalk,0\nrest|walk,0\n" walk | run ",0\n,0\n2|0,0\n')
    expected = [
        *([True, False, False], [True, False, True], [True, True, False]),
        *([False, False, False], [True, False, True]),
    ]
    assert labels("labels", file) == expected
    assert labels("labels", npz(tmp_path, x=np.zeros((5, 1)), y=np.array(expected))) == expected
    with pytest.raises(SampleFileError, match="line 2: no class is called 'jump'"):
        labels("labels", csv(tmp_path, "label,a\nwalk|jump,0\n"))


def test_labels_may_be_numbers(tmp_path: Path) -> None:
    assert labels("value", csv(tmp_path, "label,a\n1,0\n-0.25,0\n"), [""]) == [1.0, -0.25]
    assert labels("value", npz(tmp_path, x=np.zeros((2, 1)), y=np.array([1, 2])), [""]) == [1.0, 2.0]
    with pytest.raises(SampleFileError, match="line 2: 'walk' is no number"):
        labels("value", csv(tmp_path, "label,a\nwalk,0\n"), [""])
    with pytest.raises(SampleFileError, match="line 2: the label is inf; expected a finite number"):
        labels("value", csv(tmp_path, "label,a\ninf,0\n"), [""])


@pytest.mark.parametrize(
    ("target", "y", "message"),
    [
        ("class", np.zeros(2), "this head learns from names or integers (indices) [N]"),
        ("class", np.zeros((2, 3), bool), "y has dtype bool and shape [2, 3]; this head learns from names"),
        ("class", np.array([0, 3]), "sample 1 (from 0): there is no class 3; expected 0 to 2"),
        ("class", np.array([0, -1]), "sample 1 (from 0): there is no class -1"),
        ("labels", np.zeros((2, 4), bool), "this head learns from bool [N, 3], or names with '|' between"),
        ("labels", np.zeros(2, int), "this head learns from bool [N, 3]"),
        ("value", np.zeros((2, 1)), "this head learns from numbers [N]"),
        ("value", np.zeros(2, bool), "this head learns from numbers [N]"),
    ],
)
def test_labels_of_another_kind_are_refused(
    tmp_path: Path, target: str, y: np.ndarray[Any, Any], message: str
) -> None:
    with pytest.raises(SampleFileError) as error:
        labels(target, npz(tmp_path, x=np.zeros((2, 1)), y=y))
    assert message in str(error.value) and isinstance(error.value, tn.TorchNanoError)


def test_messages_name_the_line_or_sample() -> None:
    x = np.zeros((2, 1))
    assert SampleFile(Path("a.npz"), x, None).place(1) == "a.npz, sample 1 (from 0)"
    assert SampleFile(Path("a.csv"), x, None, ["a"], [2, 5]).place(1) == "a.csv, line 5"
