"""The record of a training."""

import json
import re

import pytest
import torch_nano as tn


def record(epoch, loss, **values):
    defaults = {"accuracy": None, "val_loss": None, "val_accuracy": None, "learning_rates": {"all": 0.1}}
    return tn.training.EpochRecord(epoch=epoch, loss=loss, seconds=1.25, **(defaults | values))


def history(*losses, **options):
    return tn.training.History([record(epoch, loss) for epoch, loss in enumerate(losses)], **options)


def test_it_is_a_sequence_with_columns():
    losses = history(3.0, 2.0, 1.0)
    assert len(losses) == 3 and [r.epoch for r in losses] == [0, 1, 2]
    assert losses[-1].loss == 1.0 and [r.loss for r in losses[:2]] == [3.0, 2.0]
    assert losses["loss"] == [3.0, 2.0, 1.0] and losses["accuracy"] == [None] * 3
    with pytest.raises(KeyError, match="no column 'val'; it has 'epoch', 'loss'"):
        losses["val"]
    with pytest.raises(IndexError):
        losses[3]


@pytest.mark.parametrize(
    ("losses", "min_delta", "best"),
    [
        ([], 0.0, -1),
        ([2.0], 0.0, 0),
        ([2.0, 1.0, 3.0], 0.0, 1),
        ([2.0, 1.0, 1.0], 0.0, 1),
        ([2.0, 1.9, 1.8, 1.4], 0.5, 3),
        ([2.0, 1.5], 0.5, 0),
    ],
)
def test_the_best_epoch_is_the_last_that_improves(losses, min_delta, best):
    assert history(*losses, min_delta=min_delta).best_epoch == best


def test_the_best_accuracy_is_the_highest():
    records = [record(e, 1.0, val_accuracy=a, val_loss=a) for e, a in enumerate([0.1, 0.9, 0.5])]
    assert tn.training.History(records, monitor="val_accuracy").best_epoch == 1
    assert tn.training.History(records).monitor == "val_loss" and tn.training.History(records).best_epoch == 0


def test_it_is_restored_from_json():
    first = history(2.0, 1.0, stopped="by hand", monitor="loss", min_delta=0.25)
    second = tn.training.History.from_dict(json.loads(json.dumps(first.to_dict())))
    assert list(second) == list(first)
    assert (second.stopped, second.monitor, second.min_delta) == ("by hand", "loss", 0.25)


@pytest.mark.parametrize("values", [{}, {"epochs": [{}], "monitor": "loss"}, []])
def test_other_values_are_refused(values):
    with pytest.raises(tn.errors.InputError, match="not the values of a history"):
        tn.training.History.from_dict(values)


def test_the_table_shows_several_groups():
    records = [record(0, 1.0, learning_rates={"head": 0.1}),
               record(1, 0.5, learning_rates={"head": 0.1, "features": 0.003})]  # fmt: skip
    lines = str(tn.training.History(records, stopped="enough")).splitlines()
    assert re.split(r" {2,}", lines[0].strip()) == [
        *("epoch", "loss", "seconds"),
        *("learning rate head", "learning rate features"),
    ]
    assert lines[2].split() == ["0", "1.0000", "1.2", "0.1"]
    assert lines[3].split() == ["1", "*", "0.5000", "1.2", "0.1", "0.003"]
    assert lines[4] == "stopped: enough"
    assert repr(tn.training.History(records)) == "History(epochs=2, best_epoch=1)"


def test_the_table_is_plain_text_everywhere(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "\x1b" not in str(history(2.0, 1.0)) and capsys.readouterr().out == ""
