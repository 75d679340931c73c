"""A training's output on the console."""

import re
import threading

import pytest
import torch_nano as tn
from torch_nano.training import progress
from transfer.task import data, network


def train(**options):
    return tn.fit(network(), data(), data(), epochs=3, seed=1, **options)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "INTERVAL", 0.0)


def test_every_epoch_prints_a_line(capsys):
    history = train(learning_rates={"head": 0.25}, callbacks=[stop])
    lines = capsys.readouterr().out.splitlines()
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "learning rate"]
    assert re.split(r"\s{2,}", lines[0].strip()) == columns
    for record, line in zip(history, lines[1:3], strict=True):
        cells = line.split()
        assert cells[:2] == [str(record.epoch), f"{record.loss:.4f}"]
        assert cells[2] == f"{100 * record.accuracy:.1f}%" and cells[-2:] == ["0.25", "0.001"]
    assert lines[3:] == ["stopped: enough"]
    # A line of an 80 column terminal, with one learning rate.
    assert len(lines[0]) < 80


def stop(epoch, history):
    if epoch == 1:
        raise tn.training.StopTraining("enough")


def test_without_progress_nothing_is_printed(capsys, terminal):
    train(progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(capsys, terminal):
    train()
    shown = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "checking the data" in plain
    # Two batches of training and two of validation.
    for text in ("epoch 0 of 3", "epoch 2 of 3", "4/4 val_loss"):
        assert text in plain
    # Hidden while it is drawn, and shown again.
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    # The bar is gone at the end, the lines stay.
    assert "of 3" not in plain.split("learning rate")[-1].splitlines()[-1]
    assert len(re.findall(r"[\r\n] +\d  .*%", plain)) == 3


def test_the_bar_includes_validation(terminal):
    shown = progress.TrainingProgress(epochs=3, shown=True)
    assert shown._bar is not None
    shown.checked(train_batches=5, val_batches=2)
    shown.start_epoch(1)
    shown.trained(4, 0.5)
    assert (shown._bar.tasks[0].completed, shown._bar.tasks[0].fields["note"]) == (4, "loss 0.5000")
    shown.validated(1, 0.25)
    assert (shown._bar.tasks[0].completed, shown._bar.tasks[0].fields["note"]) == (6, "val_loss 0.2500")
    assert shown._bar.tasks[0].total == 7


def test_the_bar_ends_with_an_error(capsys, terminal):
    before = set(threading.enumerate())
    with pytest.raises(tn.errors.InputError):
        tn.fit(network(), (data()[0], data()[1] + 1), epochs=1)
    for thread in set(threading.enumerate()) - before:
        # rich tells its thread to end, and does not wait for it.
        thread.join(10)
        assert not thread.is_alive()
    assert capsys.readouterr().out.count("\x1b[?25h") == 1


def test_a_notebook_without_widgets_shows_lines(capsys, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    train()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == "epoch" and not any("\x1b" in line for line in lines)
