"""`to_nano(head=...)` with settings: the trainer, its initial state, the memory of its state."""

from __future__ import annotations

import copy
import pickle
import re
import struct

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import seal
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
    with pytest.raises(tn.errors.HeadError, match=r"'0' cannot be the trainable head.*the model ends in '2'"):
        tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(layer="0"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tn.heads.SGD(learning_rate=0.0), "learning_rate is 0.0; expected a finite number above 0"),
        (lambda: tn.heads.SGD(learning_rate=-1), "learning_rate is -1; expected"),
        (lambda: tn.heads.SGD(learning_rate=float("nan")), "learning_rate is nan; expected"),
        (lambda: tn.heads.SGD(learning_rate=10**400), "learning_rate is 1000.*; expected"),
        (lambda: tn.heads.SGD(learning_rate="0.1"), "learning_rate is '0.1'; expected"),
        (lambda: tn.heads.SGD(learning_rate=True), "learning_rate is True; expected"),
        (lambda: tn.heads.SGD(loss="mse"), "loss is 'mse'; expected one of cross_entropy, binary, squared"),
        (lambda: tn.heads.SGD(loss=["squared"]), r"loss is \['squared'\]; expected one of"),
        (lambda: tn.heads.SGD(halve_every=-1), "halve_every is -1; expected a whole number, 1 or more"),
        (lambda: tn.heads.SGD(halve_every=0), "halve_every is 0; expected"),
        (lambda: tn.heads.SGD(halve_every=1.5), "halve_every is 1.5; expected"),
        (lambda: tn.heads.SGD(frozen=(-1,)), "a frozen class is -1; expected a whole number, 0 or more"),
        (lambda: tn.heads.SGD(frozen=2), "frozen is 2; expected the indices of classes"),
        (lambda: tn.heads.SGD(frozen=("walk",)), "a frozen class is 'walk'; expected"),
        (lambda: tn.heads.SGD(frozen="12"), "frozen is '12'; expected"),
        (lambda: tn.heads.SGD(class_weights=5), "class_weights is 5; expected numbers, one for each class"),
        (lambda: tn.heads.SGD(class_weights=(1, None)), "a class weight is None; expected"),
        (lambda: tn.heads.SGD(class_weights=torch.ones(2, 2)), r"class_weights is tensor\(.*; expected"),
        (lambda: tn.heads.SGD(layer=2), "layer is 2; expected the name of a module"),
        (lambda: tn.heads.LDA(layer=2), "layer is 2; expected the name of a module"),
        (lambda: tn.heads.LDA(shrinkage=0.0), "shrinkage is 0.0; expected a number from .* to 1.0"),
        (lambda: tn.heads.LDA(shrinkage=1.5), "shrinkage is 1.5; expected a number from"),
        (lambda: tn.heads.LDA(shrinkage=None), "shrinkage is None; expected"),
        (lambda: tn.heads.LDA(capacity=-1), "capacity is -1; expected a whole number, 1 or more"),
        (lambda: tn.heads.LDA(capacity=True), "capacity is True; expected"),
        (lambda: tn.heads.Prototype(capacity=1.5), "capacity is 1.5; expected"),
        (lambda: tn.heads.Prototype(layer=()), r"layer is \(\); expected"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(tn.errors.HeadError, match=message):
        make()


def test_scalars_of_numpy_and_torch_are_numbers():
    given = tn.heads.SGD(
        np.float64(0.1), halve_every=np.int64(3), class_weights=np.array([1.0, 2.0]), frozen=torch.tensor([1])
    )
    assert given == tn.heads.SGD(0.1, halve_every=3, class_weights=[1, 2], frozen=[1])
    assert hash(given) == hash(tn.heads.SGD(0.1, halve_every=3, class_weights=(1.0, 2.0), frozen=(1,)))
    assert tn.heads.LDA(torch.tensor(0.5), capacity=torch.tensor(7)) == tn.heads.LDA(0.5, capacity=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": tn.heads.LDA(capacity=3)}, "capacity is 3; expected 4, the classes of the layer, to 4096"),
        ({"head": tn.heads.Prototype(10**9)}, "capacity is 1000000000; expected 4.* to 4096"),
        ({"head": tn.heads.LDA(capacity=10**30)}, "capacity is 10000.*; expected"),
        (
            {"head": tn.heads.SGD(class_weights=(1,))},
            "class_weights is of length 1; expected 4, one for each",
        ),
        (
            {"head": tn.heads.SGD(class_weights=(1e-50, 1, 1, 2))},
            "class_weights is 1e-50 for class 0; expected at least .* beside 2.0: less counts as nothing",
        ),
        ({"head": tn.heads.SGD(frozen=(4,))}, r"frozen is \[4\]; expected classes from 0 to 3"),
        ({"head": tn.heads.SGD(frozen=(0, 1, 2, 3))}, "expected at least one class that learns"),
        ({"head": tn.heads.SGD(halve_every=2**31)}, "halve_every is 2147483648; expected at most 2147483647"),
        ({"head": tn.heads.SGD(halve_every=2**40)}, "halve_every is 1099511627776; expected"),
        ({"head": tn.heads.SGD(loss="squared")}, 'loss is "squared" for a layer of 4 outputs; expected .* 1'),
        (
            {"head": tn.heads.SGD(1e30)},
            "learning_rate is 1e30; expected .* to .* for the weights and features",
        ),
        ({"head": tn.heads.SGD}, r"or give settings: head=tn.heads.SGD\(\)"),
        ({"head": tn.heads.LdaHead}, r"or give settings: head=tn.heads.SGD\(\)"),
        ({"head": True}, r"head is True; .*head=tn.heads.SGD\(\)"),
        ({"head": tn.heads.SGD(0.1), "learning_rate": 0.7}, "learning_rate=0.7 and head=SGD.*contradict"),
        ({"head": tn.heads.LDA(), "learning_rate": 0.7}, "learning_rate=0.7 and head=LDA.*contradict"),
        ({"learning_rate": 0.7}, "learning_rate is 0.7, but nothing of this model learns"),
        ({"head": None, "learning_rate": 0.7}, "learning_rate is 0.7, but nothing of this model learns"),
        ({"head": None, "learning_rate": -5}, "learning_rate is -5; expected"),
        ({"train_last": 1.5}, "train_last is 1.5; expected a whole number, 1 or more"),
        ({"train_last": "2"}, "train_last is '2'; expected"),
        ({"train_last": 0}, "train_last is 0; expected"),
        ({"train_last": 2, "head": "2"}, "train_last=2 and head='2' contradict"),
        ({"train_last": 2, "learning_rate": 1e30}, "learning_rate is 1e30; expected .* to "),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(task, options, message):
    model, x, _ = task
    with pytest.raises(tn.errors.HeadError, match=message):
        tn.to_nano(model, x, calibrate=x, **options)


def test_the_rates_that_an_error_names_are_accepted(task):
    """Its range is the whole range, of one layer and of two."""
    model, x, _ = task
    for train_last in (1, 2):
        with pytest.raises(tn.errors.HeadError) as refused:
            tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(1e30), train_last=train_last)
        least, most = (
            float(end) for end in re.findall(r"expected (\S+) to (\S+) for", str(refused.value))[0]
        )
        assert least < most
        for rate in (least, most):
            assert tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(rate), train_last=train_last).head
        for rate in (0.99 * least, 1.01 * most):
            with pytest.raises(tn.errors.HeadError, match="learning_rate is"):
                tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(rate), train_last=train_last)


def test_all_classes_frozen_leaves_other_layers_to_learn(task):
    model, x, y = task
    settings = tn.heads.SGD(0.01, frozen=list(range(CLASSES)))
    nano = tn.to_nano(model, x, calibrate=x, head=settings, train_last=2)
    start = nano.head.state()
    nano.head.fit(nano.features_int8(x), y)
    assert nano.head.state() != start


def test_class_weights_of_a_number_are_refused():
    model, x = nn.Linear(6, 1), torch.randn(8, 6)
    with pytest.raises(tn.errors.HeadError, match=r'class_weights is \[2.0\]; expected none: loss "squared"'):
        tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(loss="squared", class_weights=(2,)))


@pytest.mark.parametrize("train_last", [1, 2])
def test_a_softmax_head_over_one_output_is_refused(train_last):
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)), torch.randn(8, 6)
    tn.freeze(model, "0")
    message = r"has 1 output, .*; expected head=tn.heads.SGD\(loss='squared'\) .*'binary'.* head=None"
    with pytest.raises(tn.errors.HeadError, match=message):
        tn.to_nano(model, x, calibrate=x, train_last=train_last)
    for loss in ("squared", "binary"):
        settings = tn.heads.SGD(loss=loss)
        assert tn.to_nano(model, x, calibrate=x, head=settings, train_last=train_last).head is not None
    if train_last == 1:
        assert tn.to_nano(model, x, calibrate=x, head=None).head is None


def test_layers_beyond_a_trainers_limits_are_refused():
    x = torch.randn(2, 257)
    with pytest.raises(tn.errors.HeadError, match="number of features is 257; expected at most 256"):
        tn.to_nano(nn.Linear(257, 2), x, calibrate=x, head=tn.heads.LDA())
    x = torch.randn(2, 2)
    with pytest.raises(tn.errors.HeadError, match="number of classes is 4097; expected at most 4096"):
        tn.to_nano(nn.Linear(2, 4097), x, calibrate=x, head=tn.heads.Prototype())


@pytest.mark.parametrize("settings", [tn.heads.LDA(), tn.heads.Prototype()])
@pytest.mark.parametrize("classes", [0, 4097, 10**9, 2**32 - 1])
def test_a_head_larger_than_any_memory_is_refused(task, settings, classes):
    """Refused before memory is taken: 10^9 classes would need 116 GB."""
    model, x, _ = task
    image = bytearray(tn.to_nano(model, x, calibrate=x, head=settings).image)
    # The head's record starts with trainer, classes, features; the checksum of all bytes after it is at 8.
    trainer = 2 if isinstance(settings, tn.heads.LDA) else 3
    place = image.index(struct.pack("<3I", trainer, CLASSES, FEATURES))
    struct.pack_into("<I", image, place + 4, classes)
    seal(image)
    with pytest.raises(tn.errors.HeadError, match=f"head classes holds {classes}, which is not allowed"):
        tn.heads.head_of(bytes(image))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3, 4], "label 0 is 1; expected a text of 1 to 64 bytes"),
        (["a", "b", "c", ""], "label 3 is ''; expected"),
        (["a", "b", "c", "a\0"], r"label 3 is 'a\\x00'; expected"),
        (["a", "b", "two\nlines", "d"], "label 2 is .*on one line"),
        (["a", "b", "c", "d" * 65], r"label 3 is 'ddd.* bytes in UTF-8"),
        (["a", "b", "c", "\U0001f600" * 16 + "!"], "label 3 is .* bytes in UTF-8"),
        (["a", "b", "c", "\ud800"], "label 3 is"),
        (["a", "b", "c", b"d"], "label 3 is b'd'; expected"),
        (["a", "b", "a", "d"], "labels 0 and 2 are both 'a'"),
        (["a", "b", "c"], "3 labels for a model of 4 outputs"),
        ("abcd", "labels is 'abcd'; expected a list of names"),
        ({"a": 1}, "labels is .*; expected a list of names"),
        (5, "labels is 5; expected a list of names"),
    ],
)
def test_labels_that_a_device_would_refuse_are_refused(task, labels, message):
    model, x, _ = task
    with pytest.raises(tn.errors.InputError, match=message):
        tn.to_nano(model, x, calibrate=x, labels=labels)


def test_labels_of_numpy_and_the_longest_ones_are_accepted(task):
    model, x, _ = task
    names = ["sixty-four bytes".ljust(64), "\U0001f600" * 4, "\u00e9t\u00e9", " "]
    for labels in (names, tuple(names), np.array(names), np.array(names, dtype=object)):
        assert tn.to_nano(model, x, calibrate=x, labels=labels).labels == names
    assert tn.to_nano(model, x, calibrate=x, labels=[]).labels == []


def test_a_class_that_arrives_later_is_learnt(task):
    """Learnt one class after another, a fifth added on the way: the head of all at once."""
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(capacity=5))
    features = nano.features_int8(x)
    head, together = nano.head, tn.heads.LdaHead(nano.image)
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
    with pytest.raises(tn.errors.HeadError, match="room for 5 classes"):
        head.add_class()


def test_heads_of_another_kind_are_refused(task):
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA())
    with pytest.raises(tn.errors.HeadError, match="this image's head is a LdaHead, not a SgdHead"):
        tn.heads.SgdHead(nano.image)
    features = nano.features_int8(x)
    before = nano.head.state()
    for labels in (y + 1, y.float(), y[:5]):
        with pytest.raises(tn.errors.HeadError):
            nano.head.fit(features, labels)
    for label in (4, -1, 1.0, None, True, "1"):
        with pytest.raises(
            tn.errors.HeadError, match=f"class to forget is {label!r}; expected a whole number, 0 to 3"
        ):
            nano.head.forget(label)
    with pytest.raises(tn.errors.HeadError, match="cannot be taken out"):
        nano.head.unlearn(features[:1], y[:1])
    with pytest.raises(tn.errors.HeadError, match="cannot be merged"):
        nano.head.merge(b"")
    for state in (None, 5, "abc", nano):
        for act in (nano.head.merge, nano.head.load):
            with pytest.raises(
                tn.errors.HeadError, match=r"the state is .*; expected a head of this image, or the bytes"
            ):
                act(state)
    for updates in (5, [nano.head], [(nano.head, 1.5)], [(nano.head, True)], [(nano.head, -1)], [(None, 1)]):
        with pytest.raises(tn.errors.HeadError, match="expected"):
            nano.head.aggregate(updates)
    with pytest.raises(tn.errors.HeadError, match="image is 5; expected"):
        tn.heads.LdaHead(5)
    with pytest.raises(tn.errors.HeadError, match="image is 5; expected"):
        tn.heads.head_of(5)
    assert nano.head.state() == before


def test_wrong_arguments_of_a_head_are_refused(task):
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.Prototype())
    head, features = nano.head, nano.features_int8(x)
    head.learn(features, y)
    learnt = head.state()
    head.load(bytearray(learnt))
    head.load(memoryview(learnt))
    for label in (np.int64(1), torch.tensor(1), np.array(1)):
        head.load(learnt)
        head.forget(label)
        assert head.state() != learnt
    start = head.state()
    for wrong in (features.tolist(), None, features.to("meta"), features.to_sparse()):
        for act in (head.logits, head.predict, lambda wrong: head.learn(wrong, y)):
            with pytest.raises(tn.errors.HeadError, match=r"features is .*; expected a"):
                act(wrong)
    for wrong in (None, y.to("meta"), y.to_sparse()):
        with pytest.raises(tn.errors.HeadError, match=r"labels is .*; expected a"):
            head.learn(features, wrong)
    assert head.state() == start


def test_wrong_targets_and_epochs_are_refused(task):
    model, x, y = task
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.05))
    head, features = nano.head, nano.features_int8(x)
    head.step(features[0], np.int64(3))
    first = head.state()
    head.reset()
    head.step(features[0], torch.tensor(3))
    assert head.state() == first
    for label in (1.0, True, None, "1", 4, -1, torch.ones(2)):
        with pytest.raises(tn.errors.HeadError, match=r"label is .*; expected a whole number, 0 to 3"):
            head.step(features[0], label)
    for epochs in (1.5, "2", True, None, -1, 2**32):
        for name in ("epochs", "first_epoch"):
            with pytest.raises(tn.errors.HeadError, match=f"{name} is .*; expected a whole number, [01] to "):
                head.fit(features, y, **{name: epochs})
    with pytest.raises(
        tn.errors.HeadError, match="first_epoch is 999999; expected a whole number, 0 to 999998"
    ):
        head.fit(features, y, 2, first_epoch=999_999)
    assert head.state() == first
    head.fit(features, y, epochs=np.int64(2), first_epoch=torch.tensor(1))
    binary = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.05, "binary")).head
    start = binary.state()
    for target in (None, "a", 1, [True], [1.0, 0.0, 0.0, 0.0]):
        with pytest.raises(tn.errors.HeadError, match=r"target.*expected bool \["):
            binary.step(features[0], target)
    assert binary.state() == start
