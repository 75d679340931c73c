"""Collecting from a device's sensor and watching it, as a user types it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from device.boards import server
from rich.console import Console
from torch import nn
from torch_nano.device import RecordedSensor, SensingOptions
from torch_nano.series.series_file import header, read_series, row
from torch_nano_cli.sensor import samples_of
from torch_nano_cli.watching import bars
from torch_nano_cli.window_predictor import WindowPredictor, shares

from .command_line import run

LENGTH, CHANNELS, LABELS = 20, 3, ["rest", "walk", "run"]


def make_nano(*, permuted: bool = False) -> tn.NanoModule:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.inner(x.transpose(1, 2))
            return made

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv1d(CHANNELS, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    x = torch.randn(64, CHANNELS, LENGTH)
    x, model = (x.transpose(1, 2), TimeFirst()) if permuted else (x, network())
    head = "inner.4" if permuted else "4"
    return tn.to_nano(model, calibrate=x, head=head, learning_rate=0.05, labels=LABELS, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sensor")
    make_nano().save(made / "moves.nanomodel")
    random = np.random.default_rng(0)
    lines = [
        row(str(number), n / 100, label, "", random.standard_normal(CHANNELS) * (number + 1))
        for number, label in enumerate(LABELS)
        for n in range(60)
    ]
    (made / "replay.csv").write_bytes(header(["ax", "ay", "az"]) + b"".join(lines))
    return made


def options(folder: Path) -> list[object]:
    return ["--model", folder / "moves.nanomodel", "--replay", folder / "replay.csv", "--rate", 5000]


def test_recordings_are_added_to_a_file_and_become_windows(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    told = run("collect", "sim", "--label", "walk", "-o", file, "--seconds", 0.008, *options(folder))
    assert told == f"{file}: 40 samples of walk, 0.0 s\n"
    told = run(
        "collect", "sim", "--label", "run", "-o", file, "--seconds", 9, "--group", "anna", *options(folder)
    )
    assert "180 samples of run in 3 recordings" in told
    series, replayed = read_series(file), read_series(folder / "replay.csv")
    assert np.array_equal(series.values, np.concatenate([replayed.values[:40], replayed.values]))
    assert series.channels == ("value0", "value1", "value2")
    assert list(dict.fromkeys(series.recordings)) == ["1", "2", "3", "4"]
    made = tn.windows(file, LENGTH, LENGTH)
    assert made.y is not None and torch.bincount(made.y).tolist() == [9, 2]
    assert made.group_names == ("all.csv 1", "anna")


def test_a_board_that_senses_sends_its_samples_into_a_file(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).standard_normal((200_000, CHANNELS)).astype(np.float32)
    nano = make_nano()
    nano.save(tmp_path / "moves.nanomodel")
    sensor = RecordedSensor(samples, options=SensingOptions(hop=20, period=400_000))

    def serve(connection: socket.socket) -> None:
        connection.settimeout(None)
        with tn.device.QemuBoard(nano.image, sensor=sensor) as board:

            def answer() -> None:
                with suppress(OSError):
                    while True:
                        connection.sendall(board.read(4096))

            thread = threading.Thread(target=answer)
            thread.start()
            while asked := connection.recv(4096):
                board.write(asked)
            board.close()
            thread.join()

    file = tmp_path / "board.csv"
    with server(serve) as url:
        told = run("collect", url, "--label", "walk", "-o", file, "--seconds", 3, "--columns", "ax, ay, az")
    assert told == f"{file}: 300 samples of walk, 3.0 s\n"
    series = read_series(file)
    assert series.channels == ("ax", "ay", "az") and series.starts.sum() == 1
    first = int(np.flatnonzero((samples == series.values[0]).all(axis=1))[0])
    assert np.array_equal(series.values, samples[first : first + 300])


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_watching_prints_what_the_model_makes_of_each_window(folder: Path, connection: str) -> None:
    nano = make_nano()
    made = tn.windows(folder / "replay.csv", LENGTH, 5)
    expected = nano(made.x).argmax(1)
    lines = run("watch", connection, "--hop", 5, *options(folder)).splitlines()
    assert [int(line.split()[0]) for line in lines] == expected.tolist()
    assert made.y is not None
    assert [line.split("[")[1] for line in lines] == [f"{made.labels[k]}]" for k in made.y]
    assert len(run("watch", connection, "--count", 2, *options(folder)).splitlines()) == 2


@pytest.mark.parametrize("permuted", [False, True], ids=["channels first", "time first"])
def test_the_window_is_the_models_input(folder: Path, permuted: bool) -> None:
    nano = make_nano(permuted=permuted)
    with tn.Device("sim", nano=nano) as device:
        predictor = WindowPredictor(device, 5)
        seen = [predictor.push(sample) for sample in samples_of(device, folder / "replay.csv", 1e6)]
    x = tn.windows(folder / "replay.csv", LENGTH, 5).x
    x = x.transpose(1, 2) if permuted else x
    windows = [one for one in seen if one is not None]
    assert torch.equal(torch.stack([one.window for one in windows]), x)
    logits = nano(x)
    for one, real in zip(windows, logits, strict=True):
        probabilities = shares(one.prediction)
        assert probabilities is not None and one.prediction.confidence is not None
        # The device says its confidence in steps of 2^-15.
        assert abs(probabilities.max() - one.prediction.confidence) < 2**-14
        assert abs(probabilities.sum() - 1) < 1e-9
        assert np.argsort(probabilities).tolist() == real.argsort(stable=True).tolist()


def test_bars_show_each_class(folder: Path) -> None:
    console = Console(width=80, force_terminal=True, record=True)
    with tn.Device("sim", nano=make_nano()) as device:
        device.configure(rejection=1)
        predictor = WindowPredictor(device, None)
        made = next(filter(None, map(predictor.push, samples_of(device, folder / "replay.csv", 1e6))))
        console.print(bars(device, made, 7))
    text = console.export_text()
    assert "window 7" in text and all(label in text for label in LABELS) and "%" in text
    assert "seen: rest" in text and "rejected" in text


def test_what_cannot_be_collected_or_watched_is_refused(folder: Path, tmp_path: Path) -> None:
    model = ["--model", folder / "moves.nanomodel"]
    replay = ["--replay", folder / "replay.csv"]
    file = tmp_path / "a.csv"
    collect = ["collect", "sim", "--label", "x", "-o", file, *model]

    def error(*arguments: object) -> str:
        return " ".join(run(*arguments, status=1).split())

    assert "the device has no sensor" in error(*collect)
    assert "--replay FILE" in error("watch", "sim", *model)
    assert not file.exists()
    assert "the rate is 0; expected samples a second" in error(*collect, *replay, "--rate", 0)
    assert "seconds is -1; expected more than 0" in error(*collect, *replay, "--seconds", -1)
    for columns in ("time,b,c", "a,a,c", "a,,c"):
        assert "expected different names, other than recording" in error(
            *collect, *replay, "--columns", columns
        )
    assert "a sample has 3 numbers; the file's columns are a, b" in error(
        *collect, *replay, "--columns", "a,b"
    )
    missing = error("watch", "sim", *model, "--replay", tmp_path / "missing.csv")
    assert "missing.csv: there is no such file" in missing
    file.write_text("label,ax,ay,az\nwalk,1,2,3\n")
    assert "was not written by collect: expected the columns recording" in error(*collect, *replay)
    file.write_bytes(header(["p", "q", "r"]) + row("1", 0, "", "", [1, 2, 3]))
    assert "has the columns p, q, r; expected a, b, c" in error(*collect, *replay, "--columns", "a,b,c")
    (tmp_path / "four.csv").write_text("label,a,b,c,d,e,f,g\nwalk,1,2,3,4,5,6,7\n")
    assert "a sample has 7 numbers, the model's input 60" in error(
        "watch", "sim", *model, "--replay", tmp_path / "four.csv"
    )
