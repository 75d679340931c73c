"""Heads that start from the factory's samples: nano-core against plain integers, and what they gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from images import head_alone
from reference import sums_heads as reference
from torch_nano import _native, heads
from torch_nano.errors import HeadError, InputError

from .random_samples import random_features

SCALE = 0.05


def described_start(rng: np.random.Generator, features: int, classes: int, zero_point: int) -> dict[str, Any]:
    """A start as Python describes it: of ordinary samples, of extremes, or of no spread at all."""
    kind = rng.integers(3)
    spread = [20.0, 127.0, 0.0][kind]
    means = rng.uniform(-128 - zero_point - (kind == 1), 127 - zero_point + (kind == 1), (classes, features))
    factor = rng.normal(0, spread / features**0.5, (features, features))
    return {
        "means": means.astype(np.float32),
        "covariance": (factor @ factor.T).astype(np.float32),
        "weights": rng.normal(0, rng.choice([0, 1e-3, 10]), (classes, features)).astype(np.float32),
        "biases": rng.normal(0, rng.choice([0, 1, 1e4]), classes).astype(np.float32),
        "mean_strength": float(rng.choice([1 / 512, 0.5, 4.0])),
        "spread_strength": float(rng.choice([0.01, 2.0, 1e3])),
    }


def image_of(start: dict[str, Any], zero_point: int, settings: heads.LDA | heads.Prototype) -> bytes:
    weights, biases = start["weights"], start["biases"]

    class Started:
        def description(self, weights: Any, biases: Any) -> dict[str, Any]:
            return {**settings.description(weights, biases), "start": start}

    settings_with_start: Any = Started()
    return head_alone(weights, biases, scale=SCALE, zero_point=zero_point, settings=settings_with_start)


@pytest.mark.parametrize("trainer", ["lda", "prototype"])
@pytest.mark.parametrize("seed", range(25))
def test_5_000_random_requests_are_those_of_the_reference(trainer: str, seed: int) -> None:
    """200 for each of 25 heads."""
    rng = np.random.default_rng(seed)
    features, capacity = int(rng.integers(1, 25)), int(rng.integers(1, 9))
    classes = int(rng.integers(1, capacity + 1))
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    shrinkage = float(rng.choice([1.0, 0.2, 2**-16]))
    start = described_start(rng, features, classes, zero_point)
    known = reference.Start.of(**start, scale=float(np.float32(SCALE)), zero_point=zero_point)
    sizes: dict[str, Any] = {"classes": classes, "capacity": capacity, "features": features, "start": known}
    settings: heads.LDA | heads.Prototype
    expected: Any
    if trainer == "lda":
        settings = heads.LDA(shrinkage, capacity)
        expected = reference.LdaHead(**sizes, zero_point=zero_point, shrinkage=shrinkage)
    else:
        settings = heads.Prototype(capacity)
        expected = reference.PrototypeHead(**sizes, zero_point=zero_point)
    native = _native.Head(image_of(start, zero_point, settings))
    assert native.state() == expected.state()
    for count in range(200):
        request = rng.random()
        if request < 0.75:
            q, label = random_features(rng, features, zero_point), int(rng.integers(expected.classes))
            native.step(q, label)
            expected.learn(q, label)
        elif request < 0.8:
            label = int(rng.integers(expected.classes))
            native.forget(label)
            expected.forget(label)
        elif request < 0.84 and expected.classes < capacity:
            assert native.add_class() == expected.classes
            expected.classes += 1
        elif request < 0.86:
            for label in range(expected.classes):
                native.forget(label)
                expected.forget(label)
        else:
            native.commit()
            if trainer == "lda":
                expected.commit()
        assert native.state() == expected.state(), f"request {count}"
        q = random_features(rng, features, zero_point)
        assert native.logits(q[None])[0].tolist() == expected.logits(q).tolist(), f"request {count}"


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_a_full_head_of_many_features_does_not_overflow(zero_point: int) -> None:
    """The user's sums at their bounds and the factory's too."""
    features, half = 3, 1 << 14
    far = np.full(features, -zero_point - 1, np.int8)
    near = np.full(features, zero_point, np.int8)
    start = {
        "means": np.full((2, features), 255.0 if zero_point < 0 else -255.0, np.float32),
        "covariance": np.full((features, features), 1e6, np.float32),
        "weights": np.zeros((2, features), np.float32),
        "biases": np.zeros(2, np.float32),
        "mean_strength": 4.0,
        "spread_strength": 1e6,
    }
    native = _native.Head(image_of(start, zero_point, heads.LDA(1.0)))
    expected = reference.LdaHead(
        classes=2,
        capacity=2,
        features=features,
        zero_point=zero_point,
        shrinkage=1.0,
        start=reference.Start.of(**start, scale=float(np.float32(SCALE)), zero_point=zero_point),
    )
    for q, label in [(far, 0), (near, 0), (far, 1)]:
        times = half if label else half // 2
        native.learn_all(np.repeat(q[None], times, 0), np.full(times, label))
        expected.counts[label] += times
        expected.sums[label] += times * expected.inputs(q)
        expected.products += times * np.outer(expected.inputs(q), expected.inputs(q))
    native.commit()
    expected.commit()
    assert expected.freedom > 1 << 15
    state = native.state()
    assert state == expected.state()
    native.load(state)


@dataclass(frozen=True)
class Shift:
    """Samples of several people: each moves all classes, and each class, from where they are on average."""

    x: torch.Tensor
    label: torch.Tensor
    person: torch.Tensor


CLASSES, WIDTH = 4, 12


def people(count: int, moved: float, seed: int, samples: int = 40) -> Shift:
    """Samples of so many people, with classes some units apart."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    centres = 1.2 * torch.randn((CLASSES, WIDTH), generator=torch.Generator().manual_seed(1))
    label = torch.arange(count * samples) % CLASSES
    person = torch.arange(count * samples) // samples
    moves = moved * (normal(count, 1, WIDTH) + normal(count, CLASSES, WIDTH))
    return Shift(centres[label] + moves[person, label] + normal(len(label), WIDTH), label, person)


@pytest.fixture(scope="module")
def model() -> torch.nn.Sequential:
    """A frozen backbone that keeps all, and a Linear trained on people who do not differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.Linear(2 * WIDTH, CLASSES))
    shift = people(10, 0.5, seed=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(shift.x), shift.label).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def started(model: torch.nn.Module, shift: Shift, **settings: Any) -> tn.NanoModule:
    start = heads.Start((shift.x, shift.label), **settings)
    return tn.to_nano(
        model, shift.x[:1], calibrate=shift.x, check=False, head=heads.LDA(capacity=5, start=start)
    )


def accuracy(nano: tn.NanoModule, user: Shift, shots: int) -> float:
    """After learning so many samples of each class, on the user's others."""
    head = nano.head
    assert isinstance(head, tn.heads.LdaHead)
    features = nano.features_int8(user.x)
    head.reset()
    if shots:
        head.fit(features[: shots * CLASSES], user.label[: shots * CLASSES])
    found = head.predict(features[20 * CLASSES :])
    return float((found == user.label[20 * CLASSES :]).float().mean())


def test_it_is_the_shipped_layer_until_it_has_learnt(model: torch.nn.Sequential) -> None:
    factory, user = people(10, 0.5, seed=2), people(1, 1.5, seed=3, samples=160)
    nano = started(model, factory)
    head = nano.head
    assert isinstance(head, tn.heads.LdaHead)
    layer = tn.to_nano(model, user.x[:1], calibrate=factory.x, check=False, head=heads.SGD()).head
    assert layer is not None
    features, shipped = nano.features_int8(user.x), head.state()
    real = head(features)[:, :CLASSES]
    # Both round the weights: SgdHead to 8 bits.
    assert float((real - layer(features)).abs().max()) < 0.02 * float(real.abs().max())
    head.commit()
    assert head.state() == shipped
    head.fit(features[:8], user.label[:8])
    assert head.state() != shipped
    head.unlearn(features[:8], user.label[:8])
    head.commit()
    assert head.state() == shipped


@pytest.mark.parametrize("moved", [0.0, 1.0, 3.0])
def test_it_is_at_least_as_good_as_the_users_samples_alone(model: torch.nn.Sequential, moved: float) -> None:
    """Mean of 12 users of 400 scored samples each, who differ little, much, or beyond recognition."""
    nano = started(model, people(10, 0.5, seed=2))
    example = people(1, 0.5, seed=2).x
    alone = tn.to_nano(model, example[:1], calibrate=people(10, 0.5, seed=2).x, check=False, head=heads.LDA())
    users = [people(1, moved, seed, samples=480) for seed in range(10, 22)]
    for shots in (1, 2, 5, 20):
        both = [np.mean([accuracy(one, user, shots) for user in users]) for one in (nano, alone)]
        assert both[0] > both[1] - 0.005, f"{shots} samples of each class: {both}"
    if moved < 3:
        first = np.mean([accuracy(nano, user, 1) for user in users])
        assert first > np.mean([accuracy(alone, user, 1) for user in users]) + 0.01


def test_what_all_classes_move_by_also_moves_those_that_are_not_taught(model: torch.nn.Sequential) -> None:
    factory, user = people(10, 0.5, seed=2), people(1, 0.0, seed=5, samples=400)
    moved = Shift(user.x + 6 * torch.ones(WIDTH), user.label, user.person)
    nano = started(
        model, Shift(torch.cat([factory.x, factory.x + 8]), factory.label.repeat(2), factory.person)
    )
    head = nano.head
    assert isinstance(head, tn.heads.LdaHead)
    features = nano.features_int8(moved.x)
    taught, others = moved.label < 2, moved.label >= 2
    before = float((head.predict(features)[others] == moved.label[others]).float().mean())
    head.fit(features[taught][:40], moved.label[taught][:40])
    after = float((head.predict(features)[others] == moved.label[others]).float().mean())
    assert after > max(before + 0.2, 0.8)


def test_merged_heads_do_not_count_the_factory_twice(model: torch.nn.Sequential) -> None:
    nano, user = started(model, people(10, 0.5, seed=2)), people(1, 1.0, seed=6)
    features = nano.features_int8(user.x)
    whole, first, second = (tn.heads.LdaHead(nano.image) for _ in range(3))
    whole.fit(features, user.label)
    first.fit(features[:15], user.label[:15])
    second.fit(features[15:], user.label[15:])
    first.merge(second)
    first.commit()
    assert first.state() == whole.state()


def test_a_class_that_is_added_and_one_that_is_forgotten(model: torch.nn.Sequential) -> None:
    """The first has no start; the other is again what the factory knows."""
    nano, user = started(model, people(10, 0.5, seed=2)), people(1, 0.5, seed=6)
    head, features = nano.head, nano.features_int8(user.x)
    assert isinstance(head, tn.heads.LdaHead)
    assert head.add_class() == CLASSES
    head.commit()
    assert int(head.logits(features)[0, CLASSES]) == -(2**31)
    head.fit(nano.features_int8(user.x + 20)[:5], torch.full((5,), CLASSES))
    assert (head.predict(nano.features_int8(user.x + 20)) == CLASSES).all()
    assert (head.predict(features) == user.label).float().mean() > 0.7
    head.fit(features[user.label == 1], torch.full((10,), 0))
    head.forget(0)
    head.commit()
    zeros = features[user.label == 0]
    assert (head.predict(zeros) == 0).float().mean() > 0.7


def test_strengths_are_chosen_by_leaving_groups_out(model: torch.nn.Sequential) -> None:
    """People who differ: another image than with the strengths of unknown groups, and the same each time. A
    given strength is kept."""
    factory = people(9, 2.0, seed=7)
    nano = started(model, factory, groups=factory.person)
    names = [f"person {number}" for number in factory.person.tolist()]
    assert nano.id == started(model, factory, groups=names).id
    assert nano.id != started(model, factory).id
    given = started(model, factory, groups=factory.person, means=0.125, spread=3)
    assert given.id not in (nano.id, started(model, factory, means=0.125, spread=3).id)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"groups": [0] * 3},
            HeadError,
            r"groups has shape \(3,\); expected one name or number for each of the",
        ),
        (
            {"groups": ["anna"] * 80},
            HeadError,
            "all samples are of the group 'anna'; expected several groups",
        ),
        ({"groups": 3}, HeadError, "groups is 3; expected one name"),
        ({"means": 0}, HeadError, "means is 0"),
        ({"means": 4.1}, HeadError, "means is 4.1; expected above 0, at most 4"),
        ({"spread": float("nan")}, HeadError, "spread is nan"),
        ({"label": torch.arange(80) % 5}, HeadError, "has classes from 0 to 4; expected 0 to 3"),
        ({"label": torch.arange(80) % 3}, HeadError, "class 3 has no samples in the start's data"),
        ({"label": torch.arange(80.0) % 4}, InputError, "dtype torch.float32; expected the classes"),
        ({"label": torch.arange(79) % 4}, InputError, "expected as many targets as inputs"),
    ],
)
def test_what_cannot_be_a_start_is_refused(
    model: torch.nn.Sequential, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    factory = people(2, 0.5, seed=2)
    label = change.pop("label", factory.label)
    with pytest.raises(error, match=message):
        started(model, Shift(factory.x, label, factory.person), **change)
    with pytest.raises(HeadError, match=r"start is 'auto'; expected heads.Start\(\(x, y\)\), or None"):
        heads.LDA(start="auto")  # type: ignore[arg-type]


def test_a_saved_model_keeps_its_start(model: torch.nn.Sequential, tmp_path: Any) -> None:
    nano, user = started(model, people(10, 0.5, seed=2)), people(1, 1.0, seed=6)
    nano.save(tmp_path / "started.nanomodel")
    loaded = tn.load(tmp_path / "started.nanomodel")
    features = nano.features_int8(user.x)
    for one in (nano, loaded):
        assert isinstance(one.head, tn.heads.LdaHead)
        one.head.fit(features, user.label)
    assert loaded.head is not None and nano.head is not None
    assert loaded.id == nano.id and loaded.head.state() == nano.head.state()


@pytest.mark.parametrize("settings", [tn.heads.LDA, tn.heads.Prototype])
def test_the_board_learns_from_a_start_what_the_host_does(
    model: torch.nn.Sequential, settings: type[tn.heads.LDA] | type[tn.heads.Prototype]
) -> None:
    factory = people(10, 1.0, seed=2)
    start = tn.heads.Start((factory.x, factory.label), groups=factory.person)
    nano = tn.to_nano(model, factory.x, calibrate=factory.x, head=settings(start=start), check=False)
    user = people(1, 1.0, seed=8)
    head, features = nano.head, nano.features_int8(user.x)
    assert isinstance(head, tn.heads.LdaHead | tn.heads.PrototypeHead)
    with tn.Device(tn.device.QemuBoard(nano.image)) as device:
        assert device.head_state() == head.state()
        for place, (sample, label) in enumerate(
            zip(nano.device_inputs(user.x), user.label.tolist(), strict=True)
        ):
            device.learn(sample, label)
            head.learn(features[place : place + 1], user.label[place : place + 1])
            if place % 5 == 0:
                device.commit()
                if isinstance(head, tn.heads.LdaHead):
                    head.commit()
                assert device.head_state() == head.state(), f"{place + 1} samples"
                prediction = device.predict(sample)
                assert prediction.logits.tolist() == head.logits(features[place : place + 1])[0].tolist()
