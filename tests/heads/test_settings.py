"""`to_nano(head=...)` with settings: which trainer, what it starts from, where its state goes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch_nano as tn
from torch import nn

CLASSES, FEATURES = 4, 12


@pytest.fixture(scope="module")
def task() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))
    y = torch.arange(200) % CLASSES
    return model, torch.randn(CLASSES, 6)[y] * 2 + torch.randn(200, 6), y


@pytest.mark.parametrize("settings", [tn.heads.SGD(0.05), tn.heads.LDA(capacity=6), tn.heads.Prototype()])
def test_each_trainer_learns_and_is_kept(task, settings, tmp_path):
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=settings)
    features = nano.features_int8(x)
    assert type(nano.head).__name__.lower() == f"{type(settings).__name__}head".lower()
    start = nano.head.state()
    nano.head.fit(features, y)
    learnt = nano.head.state()
    assert learnt != start
    assert (nano(x).argmax(1) == y).float().mean() > 0.8
    assert torch.equal(nano.head.predict(features), nano(x).argmax(1))
    nano.save(tmp_path / "model")
    again = tn.to_nano(model, x, calibrate=x, head=settings)
    again.head.load_state_dict(nano.head.state_dict())
    for other in (tn.load(tmp_path / "model"), copy.deepcopy(nano), pickle.loads(pickle.dumps(nano)), again):
        assert other.head.state() == learnt and torch.equal(other(x), nano(x))
    nano.head.reset()
    assert nano.head.state() == start
    (row,) = (layer for layer in nano.summary().layers if layer.memory == "RAM")
    assert row.operator == f"{type(settings).__name__.lower()}_head" and row.weight_bytes == len(start)


def test_sgd_settings_are_what_the_arguments_say(task):
    model, x, _ = task
    by_name = tn.to_nano(model, x, calibrate=x, head="2", learning_rate=0.07)
    assert tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.07)).image == by_name.image
    assert tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.07, layer="2")).image == by_name.image
    with pytest.raises(tn.HeadError, match=r"'0' cannot be the trainable head.*the model ends in '2'"):
        tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(layer="0"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (tn.heads.LDA(capacity=3), "head classes at the start"),
        (tn.heads.Prototype(capacity=0), "head classes or features"),
        (tn.heads.LDA(shrinkage=0.0), r"needs a shrinkage in \(0, 1\]"),
        (tn.heads.LDA(shrinkage=1.5), r"needs a shrinkage in \(0, 1\]"),
        (tn.heads.SGD(class_weights=(1.0,)), "one weight for each class"),
        (tn.heads.SGD(frozen=(4,)), "a frozen row is none of the classes"),
        (tn.heads.SGD(learning_rate=0.0), "learning rate"),
    ],
)
def test_settings_that_cannot_be(task, settings, message):
    model, x, _ = task
    with pytest.raises((tn.HeadError, tn.QuantizationError), match=message):
        tn.to_nano(model, x, calibrate=x, head=settings)


def test_a_class_that_arrives_later(task):
    """Learnt one class after another, a fifth added on the way: the head of all at once."""
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(capacity=5))
    features = nano.features_int8(x)
    head, together = nano.head, tn.LdaHead(nano.image)
    for label in range(CLASSES):
        head.learn(features[y == label], y[y == label])
        head.commit()
    assert head.add_class() == together.add_class() == CLASSES
    far = torch.full((3, FEATURES), 127, dtype=torch.int8)
    head.learn(far, torch.full((3,), CLASSES))
    head.commit()
    together.fit(torch.cat([far, features]), torch.cat([torch.full((3,), CLASSES), y]))
    assert head.state() == together.state()
    assert head.predict(far).tolist() == [CLASSES] * 3
    with pytest.raises(tn.HeadError, match="room for 5 classes"):
        head.add_class()


def test_heads_of_another_kind_are_refused(task):
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA())
    with pytest.raises(tn.HeadError, match="this image's head is a LdaHead, not a SgdHead"):
        tn.SgdHead(nano.image)
    features = nano.features_int8(x)
    before = nano.head.state()
    for labels in (y + 1, y.float(), y[:5]):
        with pytest.raises(tn.HeadError):
            nano.head.fit(features, labels)
    with pytest.raises(tn.HeadError, match="cannot be forgotten"):
        nano.head.forget(4)
    with pytest.raises(tn.HeadError, match="cannot be forgotten"):
        nano.head.forget(-1)
    with pytest.raises(tn.HeadError, match="cannot be taken out"):
        nano.head.unlearn(features[:1], y[:1])
    with pytest.raises(tn.HeadError, match="cannot be merged"):
        nano.head.merge(b"")
    assert nano.head.state() == before
