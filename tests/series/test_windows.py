"""Windows of time-series files: what they hold, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import nn
from torch_nano.series.series_file import header, read_series, row


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines))
    return file


def test_windows_stay_in_one_recording_one_label_and_without_gaps(tmp_path: Path) -> None:
    lines = [
        *(f"1,{n / 50},walk,{n},{-n}" for n in range(6)),
        *(f"1,{n / 50},walk,{n},{-n}" for n in range(8, 12)),  # two samples were lost
        *(f"1,{n / 50},,{n},{-n}" for n in range(12, 20)),  # between two movements
        *(f"1,{n / 50},run,{n},{-n}" for n in range(20, 25)),
        *(f"2,{n / 50},run,{n},{-n}" for n in range(4)),
    ]
    made = tn.windows(write(tmp_path / "a.csv", "recording,time,label,ax,ay", *lines), length=3, hop=2)
    assert made.x[:, 0, 0].tolist() == [0, 2, 8, 20, 22, 0]
    assert torch.equal(made.x[:, 1], -made.x[:, 0])
    assert torch.equal(made.x[:, 0], made.x[:, :1, 0] + torch.arange(3.0))
    assert made.y is not None and [made.labels[k] for k in made.y] == ["walk"] * 3 + ["run"] * 3
    assert made.group_names == ("a.csv 1", "a.csv 2") and made.groups.tolist() == [0] * 5 + [1]
    assert str(made) == "6 windows of 3 samples of ax, ay: 3 run, 3 walk"


def test_wearers_are_groups_and_classes_keep_the_order_of_a_training(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{who}.csv", "label,group,ax", *(f"{what},{who},{n}" for n in range(4)))
        for who, what in (("anna", "walk"), ("ben", "run"))
    ]
    made = tn.windows(files, 2, labels=["walk", "run", "rest"])
    assert made.y is not None and made.y.tolist() == [0, 0, 1, 1]
    assert made.group_names == ("anna", "ben") and made.groups.tolist() == [0, 0, 1, 1]
    with pytest.raises(tn.errors.InputError, match=r"have the labels run; expected walk$"):
        tn.windows(files, 2, labels=["walk"])


def test_windows_are_data_for_a_model_and_a_device(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = [
        row("1" if n < 600 else "2", n / 100, label, "anna", random.standard_normal(3) * scale)
        .decode()
        .strip()
        for label, scale, first in (("rest", 0.1, 0), ("run", 3, 600))
        for n in range(first, first + 600)
    ]
    made = tn.windows(write(tmp_path / "a.csv", header("xyz").decode().strip(), *lines), 20, 10)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv1d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2))
    )
    assert made.y is not None
    nano = tn.to_nano(
        model,
        calibrate=made.x,
        labels=made.labels,
        head=tn.heads.LDA(start=tn.heads.Start((made.x, made.y))),
        check=False,
    )
    with tn.Device("sim", nano=nano) as device:
        device.fit(made.x, made.y)
        right = sum(device.predict(x).label == int(y) for x, y in zip(made.x, made.y, strict=True))
    assert right > 0.95 * len(made), right


def test_a_written_row_is_read_to_the_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    lines = [row("1", n / 100, 'a "b", c', "", one) for n, one in enumerate(values)]
    (tmp_path / "a.csv").write_bytes(header("wxyz") + b"".join(lines))
    series = read_series(tmp_path / "a.csv")
    assert np.array_equal(series.values, values)
    assert set(series.labels) == {'a "b", c'} and series.starts.sum() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.csv has the columns none; expected one for each number of the sensor"),
        ("label,time\nwalk,1\n", r"has the columns label, time; expected one for each number"),
        ("label,ax\n", "a.csv has no row"),
        ("label,ax\nwalk,1\nwalk,x\n", "a.csv, line 3: 'x' is no number"),
        ("label,ax\nwalk,1\nwalk,nan\n", "a.csv, line 3 has NaN or infinity"),
        ("label,ax\nwalk,1,2\n", "a.csv, line 2 has 3 fields; expected 2"),
        ("time,ax\n1,1\n1,2\n", "a.csv, line 3: the time is 1, after 1; expected a growing one"),
        ("time,ax\n0,1\nsoon,2\n", "a.csv, line 3: 'soon' is no number"),
        ("0.1,0.2\n1,2\n", "line 1 has 0.1, 0.2, which is a sample"),
    ],
)
def test_what_is_no_time_series_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(tn.errors.FileFormatError, match=message):
        tn.windows(file, 1)


def test_arguments_that_give_no_window_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "label,ax", *["walk,1"] * 5, *["run,1"] * 7)
    other = write(tmp_path / "b.csv", "label,ay", *["walk,1"] * 9)
    for arguments, message in (
        ((file, 8), "no window of 8 rows fits: the longest stretch .* has 7"),
        ((file, 0), "length is 0"),
        ((file, 2, 0), "hop is 0"),
        (([], 2), "there is no file"),
        ((7, 2), "files is 7; expected a path, or several"),
        (([file, other], 2), r"b.csv has the columns label, ay, .*a.csv label, ax; expected the same"),
    ):
        with pytest.raises(tn.errors.InputError, match=message):
            tn.windows(*arguments)  # type: ignore[arg-type]
    plain = write(tmp_path / "c.csv", "ax", "1", "2")
    assert tn.windows(plain, 2).y is None
    with pytest.raises(tn.errors.InputError, match="the files have no column `label`"):
        tn.windows(plain, 2, labels=["walk"])
    with pytest.raises(tn.errors.InputError, match="labels is 'walk'; expected the names"):
        tn.windows(file, 2, labels="walk")
    with pytest.raises(tn.errors.MissingFileError, match="there is no such file"):
        tn.windows(tmp_path / "missing.csv", 2)
