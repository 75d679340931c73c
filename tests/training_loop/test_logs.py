"""Logs of a training by callbacks: CSV files, and writers such as TensorBoard's."""

import csv
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from matplotlib import pyplot
from torch import nn

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


class Writer:
    """Notes what it is given, as TensorBoard's SummaryWriter is called."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.taken.append((tag, scalar_value, global_step))


def test_logs_have_the_figures_of_the_history(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    file, writer = tmp_path / "log.csv", Writer()
    file.write_text("of an earlier training")

    def freeze(epoch: int, history: tn.training.History) -> None:
        if epoch == 0:
            tn.freeze(model, "0")

    history = tn.fit(
        model,
        (X, Y),
        (X, Y),
        epochs=3,
        learning_rates={"0": 1e-3, "2": 1e-2},
        callbacks=[freeze, tn.training.CsvLog(file), tn.training.ScalarLog(writer)],
        progress=False,
        seed=0,
    )
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [float(row[name]) for row in rows] == history[name]
        assert [value for tag, value, _ in writer.taken if tag == name] == history[name]
    assert [row["learning_rate 0"] for row in rows] == ["0.001", "", ""]
    assert [step for tag, _, step in writer.taken if tag == "loss"] == [0, 1, 2]


def test_wrong_places_to_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(tn.errors.FitError, match=r"expected one with add_scalar\(name, value, epoch\)"):
        tn.training.ScalarLog(print)  # type: ignore[arg-type]
    with pytest.raises(tn.errors.InputError, match="path is 3; expected a path"):
        tn.training.CsvLog(3)  # type: ignore[arg-type]
    log = tn.training.CsvLog(tmp_path / "no folder" / "log.csv")
    with pytest.raises(OSError, match="no folder"):
        tn.fit(nn.Linear(4, 3), (X, Y), epochs=1, callbacks=[log], progress=False)


@pytest.mark.parametrize("labels", [True, False], ids=["classes", "numbers"])
def test_a_history_draws_losses_and_accuracies(labels: bool) -> None:
    y = Y if labels else torch.randn(64, 3)
    history = tn.fit(nn.Linear(4, 3), (X, y), (X, y), epochs=3, progress=False, seed=0)
    ax = history.plot()
    lines = {line.get_label(): list(line.get_ydata()) for axes in ax.figure.axes for line in axes.get_lines()}
    assert lines["loss"] == history["loss"] and lines["val_loss"] == history["val_loss"]
    if labels:
        assert lines["accuracy"] == [100 * share for share in history["accuracy"]]
    else:
        assert "accuracy" not in lines and len(ax.figure.axes) == 1
    pyplot.close(ax.figure)
