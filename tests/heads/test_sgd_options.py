"""The options of SgdHead: nano-core against the definition, byte for byte, and their effects."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import head_alone
from reference import sgd_head as reference
from torch_nano import _native, heads

from .random_samples import random_target


def twins(classes: int, width: int, seed: int, lr: float | None = 0.05, **options: Any) -> tuple[Any, Any]:
    """nano-core's head and the reference, of random weights."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.3, (classes, width)).astype(np.float32)
    biases = rng.normal(0, 0.3, classes).astype(np.float32)
    scale, zero_point = float(np.float32(0.03)), int(rng.choice([-128, 127, -3]))
    settings = heads.SGD(learning_rate="auto" if lr is None else lr, **options)
    image = head_alone(weights, biases, scale=scale, zero_point=zero_point, settings=settings)
    expected = reference.SgdHead.from_float(
        weights, biases, feature_scale=scale, feature_zero_point=zero_point, lr=lr, capacity=20, **options
    )
    return _native.Head(image), expected


def state_of(head: reference.SgdHead) -> bytes:
    return struct.pack("<II", head.exponent, head.random.state) + head.stored.astype("<i2").tobytes()


@pytest.mark.parametrize("loss", ["cross_entropy", "binary", "squared"])
@pytest.mark.parametrize("seed", range(34))
def test_10_000_random_steps_are_those_of_the_reference(loss: str, seed: int) -> None:
    """Of 102 heads 100 steps and 3 trainings: all targets, ends of int8, rates up to saturating weights."""
    rng = np.random.default_rng(seed)
    classes = 1 if loss == "squared" else int(rng.integers(1, 9))
    width = int(rng.integers(1, 30))
    options = {
        "loss": loss,
        "halve_every": [None, 1, 3][seed % 3],
        "class_weights": tuple(rng.uniform(0.01, 5, classes)) if seed % 2 and loss != "squared" else (),
        # Not all of them, which is refused.
        "frozen": tuple(np.flatnonzero(rng.random(classes) < 0.2).tolist())[: classes - 1],
        "balance": loss == "cross_entropy" and seed % 3 == 1,
        "half_life": [None, 1, 3, 8, 40][seed % 5],
    }
    rate = 10 ** rng.uniform(-3, 0)
    native, expected = twins(classes, width, seed, lr=None if seed % 4 == 3 else rate, **options)
    for count in range(100):
        q = rng.choice(np.array([-128, 127, rng.integers(-128, 128)], np.int8), width)
        target = random_target(rng, loss, classes)
        native.step(q, target)
        expected.step(q, target)
        assert native.state() == state_of(expected), f"step {count}"
    for epochs in (1, 7, 40):
        features = rng.integers(-128, 128, (20, width), np.int8)
        targets = [random_target(rng, loss, classes) for _ in features]
        if seed % 2 and loss == "cross_entropy":
            # One class has most of the samples: more than 16 times those of others.
            targets[:18] = [targets[0]] * 18
        expected.ring = []
        for q, target in zip(features, targets, strict=True):
            expected.record(q, target)
        native.train(features, np.array(targets), epochs)
        expected.train(epochs)
        assert native.state() == state_of(expected), f"{epochs} epochs"


@pytest.mark.parametrize("loss", ["cross_entropy", "binary", "squared"])
def test_guarded_trainings_are_those_of_the_reference(loss: str) -> None:
    """Of 80 heads 5 trainings on a ring in which samples come and go: some are kept, some taken back."""
    outcomes = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        classes = 1 if loss == "squared" else int(rng.integers(2, 6))
        width, guard = int(rng.integers(2, 12)), int(rng.integers(2, 9))
        rate = None if seed % 3 == 0 else 10 ** rng.uniform(-3, -0.5)
        half_life = None if seed % 2 else int(rng.integers(1, 9))
        native, expected = twins(classes, width, seed, lr=rate, loss=loss, guard=guard, half_life=half_life)
        centre = rng.integers(-128, 128, (4, width))
        for _ in range(5):
            for kind in rng.integers(0, 4, rng.integers(1, 25)):
                noise = rng.integers(-30, 31, width)
                # A third of the targets is wrong, so that trainings may do harm.
                known = {"cross_entropy": kind % classes, "binary": kind % 2**classes, "squared": kind * 900}
                wrong = rng.random() < 0.3
                target = random_target(rng, loss, classes) if wrong else int(known[loss])
                expected.record(np.clip(centre[kind] + noise, -128, 127), target)
            features = np.array([q for q, _ in expected.ring], np.int8)
            targets = np.array([target for _, target in expected.ring], np.int64)
            made = native.train(features, targets, 8, first=expected.first)
            outcomes.append(expected.train(8))
            assert made == outcomes[-1] and native.state() == state_of(expected), f"seed {seed}"
    assert outcomes.count(True) > 20 and outcomes.count(False) > 20


def test_fit_says_whether_the_training_was_taken_back() -> None:
    """Every second sample is kept aside and right. Wrong labels of the others spoil the head, right ones mend
    another."""
    labels = torch.arange(40) // 2 % 2
    features = torch.where(labels[:, None] == torch.arange(2), 100, -100).to(torch.int8)
    others_wrong = torch.where(torch.arange(40) % 2 == 0, 1 - labels, labels)
    right = np.eye(2, dtype=np.float32)
    for weights, given, expected in ((right, others_wrong, True), (-right, labels, False)):
        settings = heads.SGD(0.05, guard=2)
        image = head_alone(weights, np.zeros(2, np.float32), scale=0.03, zero_point=0, settings=settings)
        head = heads.head_of(image)
        assert isinstance(head, heads.SgdHead)
        before = head.state()
        head.fit(features, given, 20)
        assert head.taken_back is expected and (head.state() == before) is expected


def test_a_guard_is_two_or_more_or_none() -> None:
    for guard in (0, 1, -3, 2.5, "8"):
        with pytest.raises(tn.errors.HeadError, match="guard"):
            heads.SGD(guard=guard)  # type: ignore[arg-type]
    with pytest.raises(_native.SettingError, match="guard is 65537; expected 2 to 65536, or none"):
        twins(3, 4, 0, guard=65537)


def test_settings_left_alone_change_nothing() -> None:
    """Equal class weights and a schedule that is never reached give the head without them."""
    rng = np.random.default_rng(0)
    features, labels = rng.integers(-128, 128, (30, 8), np.int8), rng.integers(0, 3, 30)
    states = []
    for options in ({}, {"class_weights": (2.5, 2.5, 2.5)}, {"halve_every": 6}):
        native, _ = twins(3, 8, 1, **options)
        native.train(features, labels, 6)
        states.append(native.state())
    assert states[0] == states[1] == states[2]


def test_a_training_goes_on_where_it_stopped() -> None:
    """In parts that say which epochs they are, with the rate halved every two, it gives the same."""
    rng = np.random.default_rng(1)
    features, labels = rng.integers(-128, 128, (30, 8), np.int8), rng.integers(0, 3, 30)
    states = []
    for parts in ([(0, 7)], [(0, 3), (3, 4)], [(0, 3), (0, 4)]):
        native, _ = twins(3, 8, 1, halve_every=2)
        for first_epoch, epochs in parts:
            native.train(features, labels, epochs, first_epoch)
        states.append(native.state())
    whole, continued, anew = states
    assert whole == continued != anew


def test_balanced_classes_of_equal_numbers_learn_as_all_others() -> None:
    rng = np.random.default_rng(3)
    features, labels = rng.integers(-128, 128, (30, 8), np.int8), np.arange(30) % 3
    states = []
    for balance, chosen in itertools.product((False, True), (slice(30), slice(25))):
        native, _ = twins(3, 8, 1, balance=balance)
        native.train(features[chosen], labels[chosen], 6)
        states.append(native.state())
    equal, unequal, equal_balanced, unequal_balanced = states
    assert equal == equal_balanced and unequal != unequal_balanced


@pytest.mark.parametrize("settings", [{"loss": "binary"}, {"loss": "squared"}])
def test_balance_without_one_right_class_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(tn.errors.HeadError, match="balance is True with loss"):
        nano_of(heads.SGD(balance=True, **settings), 1 if settings["loss"] == "squared" else 3)


def test_balance_of_several_layers_or_another_type_is_refused() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.randn(64, 4)
    with pytest.raises(tn.errors.HeadError, match="balance is True; expected False for several layers"):
        tn.to_nano(model, x, calibrate=x, head=heads.SGD(balance=True), train_last=2)
    with pytest.raises(tn.errors.HeadError, match="balance is 'yes'; expected True or False"):
        heads.SGD(balance="yes")  # type: ignore[arg-type]
    with pytest.raises(tn.errors.HeadError, match="balance is False; expected True: LDA has equal priors"):
        heads.LDA(balance=False)  # type: ignore[arg-type]
    assert heads.LDA(balance=True) == heads.LDA()


def test_frozen_rows_stay() -> None:
    rng = np.random.default_rng(2)
    native, _ = twins(4, 6, 2, frozen=(1, 3))
    rows = lambda: np.frombuffer(native.state()[8:], "<i2").reshape(4, 7)  # noqa: E731
    before = rows()
    native.train(rng.integers(-128, 128, (20, 6), np.int8), rng.integers(0, 4, 20), 2)
    assert (rows() != before).any(1).tolist() == [True, False, True, False]


def nano_of(settings: heads.SGD, outputs: int) -> tuple[tn.NanoModule, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, outputs))
    x = torch.randn(400, 4)
    return tn.to_nano(model, x, calibrate=x, head=settings), x


def test_regression_learns_a_number() -> None:
    nano, x = nano_of(heads.SGD(0.03, "squared", halve_every=10), 1)
    y = 0.5 * x[:, 0] - 0.3 * x[:, 1] + 0.2
    features = nano.features_int8(x)
    nano.head.fit(features, y, epochs=40)
    error = float((nano.head.predict(features) - y).square().mean())
    inputs = torch.cat([features.float(), torch.ones(400, 1)], 1)
    best = (inputs @ torch.linalg.lstsq(inputs, y[:, None]).solution - y[:, None]).square().mean()
    # Least squares in float on the same features; int8 weights and 40 epochs cost less than a tenth of it.
    assert error < 1.1 * float(best)
    assert torch.allclose(nano(x)[:, 0], nano.head.predict(features))


def test_several_classes_can_be_right() -> None:
    nano, x = nano_of(heads.SGD(0.05, "binary"), 3)
    y = torch.stack([x[:, 0] > 0, x[:, 1] > 0.5, x[:, 0] + x[:, 2] < 0], 1)
    features = nano.features_int8(x)
    nano.head.fit(features, y, epochs=20)
    found = nano.head.predict(features)
    assert found.shape == (400, 3) and found.dtype == torch.bool
    assert (found == y).float().mean() > 0.9


def test_a_rare_class_that_counts_more_is_found_more_often() -> None:
    recalls = []
    for weights in ((), (1.0, 20.0)):
        nano, x = nano_of(heads.SGD(0.02, class_weights=weights), 2)
        y = (x[:, 0] + torch.randn(400, generator=torch.Generator().manual_seed(1)) > 2.2).long()
        features = nano.features_int8(x)
        nano.head.fit(features, y, epochs=10)
        recalls.append(float((nano.head.predict(features) == 1)[y == 1].float().mean()))
    assert recalls[1] > recalls[0] + 0.2


def test_wrong_options_and_targets_are_refused() -> None:
    for loss, outputs in (("squared", 2), ("binary", 33)):
        with pytest.raises(
            tn.errors.HeadError, match=f'loss is "{loss}" for a layer of {outputs} outputs; expected'
        ):
            nano_of(heads.SGD(loss=loss), outputs)
    binary, x = nano_of(heads.SGD(loss="binary"), 3)
    features = binary.features_int8(x)
    for targets in (
        torch.zeros(400, dtype=torch.long),
        torch.zeros(400, 3),
        torch.zeros(400, 2, dtype=torch.bool),
    ):
        with pytest.raises(tn.errors.HeadError, match=r"expected bool \[400, 3\]"):
            binary.head.fit(features, targets)
    squared, x = nano_of(heads.SGD(loss="squared"), 1)
    with pytest.raises(tn.errors.HeadError, match="expected finite numbers"):
        squared.head.fit(squared.features_int8(x), torch.full((400,), torch.nan))
    with pytest.raises(_native.NanoError, match="label 3 is not below"):
        _native.Head(binary.image).step(np.zeros(16, np.int8), 8)
    with pytest.raises(_native.NanoError, match="cannot merge"):
        _native.Head(binary.image).merge(b"")


@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
def test_a_rate_by_the_features_suits_features_of_any_size(size: float) -> None:
    """Gaussian classes in 16 features; within 2 points of the best of 13 fixed rates, of 600 samples."""
    rng = np.random.default_rng(0)
    classes, width = 5, 16
    centres = rng.normal(0, 1, (classes, width))
    label = np.arange(700) % classes
    real = centres[label] + rng.normal(0, 1, (700, width))
    scale = float(np.float32(4 * size / 127))
    features = np.clip(np.rint(real * size / scale), -128, 127).astype(np.int8)
    zeros = np.zeros((classes, width), np.float32), np.zeros(classes, np.float32)

    def accuracy(rate: Any) -> float:
        settings = heads.SGD(learning_rate=rate, halve_every=4)
        head = _native.Head(head_alone(*zeros, scale=scale, zero_point=0, settings=settings))
        head.train(features[:100], label[:100].astype(np.int64), 20)
        return float((head.logits(features[100:]).argmax(1) == label[100:]).mean())

    fixed = [accuracy(2.0**power / size**2) for power in range(-12, 1)]
    assert accuracy("auto") > max(fixed) - 0.02, fixed
    assert max(fixed) - min(fixed) > 0.02


def test_a_user_whose_features_are_larger_is_learnt_at_a_lower_rate() -> None:
    """One step from zero moves a weight by rate * x / 2: a quarter of it with features 4 times as large."""
    zeros = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    image = head_alone(*zeros, scale=1.0, zero_point=0, settings=heads.SGD(learning_rate="auto"))
    moved = []
    for size in (32, 127):
        head = _native.Head(image)
        head.step(np.full(4, size, np.int8), 0)
        moved.append(int(np.frombuffer(head.state()[8:], "<i2").astype(int)[0] - 128))
    assert moved[0] / moved[1] == pytest.approx(4, rel=0.03)


def test_a_training_with_a_half_life_begins_with_the_shipped_weights() -> None:
    """Only the ring counts, not what earlier trainings learnt; one that continues another goes on."""
    rng = np.random.default_rng(0)
    weights, biases = rng.normal(0, 0.3, (3, 6)).astype(np.float32), np.zeros(3, np.float32)
    features, label = rng.integers(-128, 128, (20, 6), np.int8), np.arange(20) % 3
    for half_life in (None, 4):
        settings = heads.SGD(0.05, half_life=half_life)
        image = head_alone(weights, biases, scale=0.03, zero_point=0, settings=settings)
        once, twice, parts = (_native.Head(image) for _ in range(3))
        once.train(features, label, 6)
        twice.train(features[::-1].copy(), label, 6)
        twice.train(features, label, 6)
        parts.train(features, label, 2)
        parts.train(features, label, 4, 2)
        assert (twice.state() == once.state()) == (half_life is not None)
        assert parts.state() == once.state()


def rate_of(features: np.ndarray, label: np.ndarray, weights: np.ndarray) -> float:
    """The rate by the features over a fixed one, by the first step that moves a weight."""
    biases = np.zeros(len(weights), np.float32)
    for steps in range(1, len(label)):
        moved = []
        for rate in ("auto", 0.01):
            settings = heads.SGD(rate)
            head = _native.Head(head_alone(weights, biases, scale=1 / 64, zero_point=0, settings=settings))
            before = np.frombuffer(head.state()[8:], "<i2").astype(int)
            head.train(features, label, 1, 0, steps)
            moved.append(np.abs(np.frombuffer(head.state()[8:], "<i2") - before).max())
        if moved[1]:
            return float(moved[0] / moved[1])
    raise AssertionError("no step moves a weight")


def test_samples_that_agree_are_learnt_at_a_higher_rate() -> None:
    """Two users of a layer that knows the classes: for one it is always wrong, for the other at random."""
    rng = np.random.default_rng(0)
    weights = (np.eye(2, 16) * 4).astype(np.float32)
    label = np.arange(40) % 2
    features = np.clip(np.eye(16)[label] * 64 + rng.normal(0, 4, (40, 16)), -128, 127).astype(np.int8)
    # The user's class 1 looks like class 0, at another place of the other features.
    shifted = features.copy()
    shifted[label == 1, :2] = [64, 0]
    shifted[label == 1, 5] = 100
    noisy = rng.permutation(label[:8].repeat(5))
    agreeing, random = rate_of(shifted, label, weights), rate_of(features, noisy, weights)
    assert agreeing > 2 * random, (agreeing, random)


def test_the_rate_for_first_samples_is_chosen_by_other_users() -> None:
    """Users whose classes are moved for good are learnt faster than those with noise; the image says so."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Linear(16, 16), torch.nn.Linear(16, 10)
    with torch.no_grad():
        for layer, size in zip(layers, (1, 8), strict=True):
            layer.weight.copy_(size * torch.eye(layer.out_features, 16))
            layer.bias.zero_()
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    y, user = torch.arange(400) % 10, torch.arange(400) // 100
    # Classes 0 and 1 have changed places, or the samples are noise.
    moved = torch.eye(16)[torch.where(y < 2, 1 - y, y)] + 0.2 * torch.rand(400, 16, generator=generator)
    noise = torch.eye(16)[y] + torch.rand(400, 16, generator=generator)
    priors = {}
    for name, x in (("moved", moved), ("noise", noise)):
        settings = heads.SGD(heads.AutoRate((x, y), groups=user), halve_every=4)
        nano = tn.to_nano(model, x, calibrate=x, check=False, head=settings)
        priors[name] = nano._saved().head.description["prior"]
    assert priors["moved"] > priors["noise"], priors


def test_a_rate_by_other_users_needs_classes_and_samples() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x, y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3

    def convert(rate: heads.AutoRate, **options: Any) -> None:
        tn.to_nano(model, x, calibrate=x, check=False, head=heads.SGD(rate, **options))

    with pytest.raises(
        tn.errors.HeadError, match=r'heads\.AutoRate is for loss "cross_entropy", and the loss'
    ):
        convert(heads.AutoRate((x, y)), loss="binary")
    with pytest.raises(tn.errors.HeadError, match="the rate's 9 samples have no 4 of one class; expected 4"):
        convert(heads.AutoRate((x[:9], y[:9])))
    with pytest.raises(tn.errors.HeadError, match="the rate's data has classes from 0 to 5; expected 0 to 2"):
        convert(heads.AutoRate((x, torch.arange(40) % 6)))
    with pytest.raises(tn.errors.HeadError, match=r"groups has shape \(3,\)"):
        convert(heads.AutoRate((x, y), groups=[1, 2, 3]))
    with pytest.raises(tn.errors.HeadError, match="groups is 5; expected one name or number"):
        heads.AutoRate((x, y), groups=5)  # type: ignore[arg-type]
    with pytest.raises(tn.errors.HeadError, match="epochs is 0"):
        heads.AutoRate((x, y), epochs=0)
    with pytest.raises(tn.errors.HeadError, match="expected a number: several layers"):
        tn.to_nano(model, x, calibrate=x, check=False, train_last=2, head=heads.SGD(heads.AutoRate((x, y))))


def test_layers_that_learn_together_need_a_rate() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        tn.errors.HeadError, match='learning_rate is "auto"; expected a number: several layers'
    ):
        tn.to_nano(model, x, calibrate=x, check=False, train_last=2, learning_rate="auto")
    nano = tn.to_nano(model, x, calibrate=x, check=False, head="2", learning_rate="auto")
    same = tn.to_nano(model, x, calibrate=x, check=False, head=heads.SGD(learning_rate="auto"))
    assert nano.id == same.id
    with pytest.raises(tn.errors.HeadError, match="learning_rate is 'fast'"):
        heads.SGD(learning_rate="fast")  # type: ignore[arg-type]
