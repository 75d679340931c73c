"""nano-core's LdaHead and PrototypeHead against their definitions in plain integers, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from images import head_alone
from reference import sums_heads as reference
from torch_nano import _native, heads

from .random_samples import Int8, random_features


def image_of(
    trainer: str,
    features: int,
    classes: int,
    capacity: int | None = None,
    *,
    zero_point: int = -128,
    shrinkage: float = 0.2,
    half_life: int | None = None,
) -> bytes:
    settings = (
        heads.LDA(shrinkage, capacity, half_life=half_life)
        if trainer == "lda"
        else heads.Prototype(capacity, half_life=half_life)
    )
    weights, biases = np.zeros((classes, features), np.float32), np.zeros(classes, np.float32)
    return head_alone(weights, biases, scale=0.05, zero_point=zero_point, settings=settings)


def twins(
    trainer: str, features: int, classes: int, capacity: int | None = None, **options: Any
) -> tuple[Any, Any]:
    """nano-core's head and the reference."""
    native = _native.Head(image_of(trainer, features, classes, capacity, **options))
    sizes = {"classes": classes, "capacity": capacity or classes, "features": features}
    sizes |= {"zero_point": options.get("zero_point", -128), "half_life": options.get("half_life")}
    if trainer == "prototype":
        return native, reference.PrototypeHead(**sizes)
    return native, reference.LdaHead(**sizes, shrinkage=options.get("shrinkage", 0.2))


@pytest.mark.parametrize("trainer", ["lda", "prototype"])
@pytest.mark.parametrize("seed", range(25))
def test_10_000_random_requests_are_those_of_the_reference(trainer: str, seed: int) -> None:
    """400 for each of 25 heads: all labels, saturating features, all that a head can be asked."""
    rng = np.random.default_rng(seed)
    features, capacity = int(rng.integers(1, 25)), int(rng.integers(1, 9))
    classes = int(rng.integers(1, capacity + 1))
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    shrinkage = float(rng.choice([1.0, 0.2, 2**-16, rng.uniform(0.001, 1)]))
    options: dict[str, Any] = {"zero_point": zero_point, "half_life": [None, 1, 3, 20][seed % 4]}
    options |= {"shrinkage": shrinkage} if trainer == "lda" else {}
    native, expected = twins(trainer, features, classes, capacity, **options)
    samples: list[tuple[Int8, int]] = []
    for count in range(400):
        request = rng.random()
        if request < 0.85 or not samples:
            q, label = random_features(rng, features, zero_point), int(rng.integers(expected.classes))
            native.step(q, label)
            expected.learn(q, label)
            samples.append((q, label))
        elif request < 0.9 and expected.halvings:
            q, label = samples[0]
            with pytest.raises(_native.NanoError, match="cannot unlearn samples after its sums were halved"):
                native.unlearn_all(q[None], np.array([label]))
        elif request < 0.9:
            q, label = samples.pop(int(rng.integers(len(samples))))
            native.unlearn_all(q[None], np.array([label]))
            expected.learn(q, label, -1)
        elif request < 0.92:
            label = int(rng.integers(expected.classes))
            native.forget(label)
            expected.forget(label)
            samples = [sample for sample in samples if sample[1] != label]
        elif request < 0.94 and expected.classes < capacity:
            assert native.add_class() == expected.classes
            expected.classes += 1
        else:
            native.commit()
            if trainer == "lda":
                expected.commit()
        assert native.state() == expected.state(), f"request {count}"
        q = random_features(rng, features, zero_point)
        assert native.logits(q[None])[0].tolist() == expected.logits(q).tolist(), f"request {count}"
    assert (expected.halvings > 0) == (options["half_life"] is not None), "no class had enough samples"


@pytest.mark.parametrize("seed", range(40))
def test_few_samples_of_many_features_are_solved(seed: int) -> None:
    """One to three of each class: lambda is up to a thousand times the mean of the diagonal, or 1."""
    rng = np.random.default_rng(seed)
    features, classes = int(rng.integers(16, 97)), int(rng.integers(1, 7))
    zero_point = int(rng.choice([-128, 127, 0]))
    shrinkage = float(rng.choice([1.0, 0.2, 2**-16]))
    native, expected = twins("lda", features, classes, zero_point=zero_point, shrinkage=shrinkage)
    for shot in range(3):
        for label in range(classes):
            if shot == 0 or rng.random() < 0.4:
                q = random_features(rng, features, zero_point)
                native.step(q, label)
                expected.learn(q, label)
        if rng.random() < 0.3:
            label = int(rng.integers(classes))
            native.forget(label)
            expected.forget(label)
        native.commit()
        expected.commit()
        assert native.state() == expected.state(), f"shot {shot}"
        q = random_features(rng, features, zero_point)
        assert native.logits(q[None])[0].tolist() == expected.logits(q).tolist(), f"shot {shot}"


@pytest.mark.parametrize("classes", [1, 40])
def test_the_largest_lambda_does_not_overflow(classes: int) -> None:
    """256 features and one degree of freedom: 2^14 times the mean of the diagonal, as large as it can be. The
    40 classes' sums of products alone leave no room for that."""
    native, expected = twins("lda", 256, classes, shrinkage=1.0)
    low, high = (np.full(256, end, np.int8) for end in (-128, 127))
    for q, label in [(low, 0), *((high, label) for label in range(classes))]:
        native.step(q, label)
        expected.learn(q, label)
    native.commit()
    expected.commit()
    assert expected.freedom == 1
    assert native.state() == expected.state()
    for q in (low, high):
        assert native.logits(q[None])[0].tolist() == expected.logits(q).tolist()


def test_a_head_of_a_watchs_size_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    native, expected = twins("lda", 64, 10)
    for count in range(200):
        q = np.clip(rng.normal(-100 + 10 * (count % 10), 30, 64), -128, 127).astype(np.int8)
        native.step(q, count % 10)
        expected.learn(q, count % 10)
    native.commit()
    expected.commit()
    assert native.state() == expected.state()


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_sums_at_their_limits_do_not_overflow(zero_point: int) -> None:
    """All sums at their bounds; one sample more halves them."""
    native, expected = twins("lda", 3, 2, zero_point=zero_point)
    far = np.full(3, -zero_point - 1, np.int8)
    half = 1 << 14
    native.learn_all(np.repeat(far[None], half, 0), np.zeros(half, np.int64))
    other = np.array([[far[0], far[1], zero_point]], np.int8)
    native.learn_all(np.repeat(other, half, 0), np.ones(half, np.int64))
    for label, q in enumerate([far, other[0]]):
        expected.counts[label] = half
        expected.sums[label] = half * expected.inputs(q)
        expected.products += half * np.outer(expected.inputs(q), expected.inputs(q))
    assert int(expected.products.max()) == 65025 << 15
    native.commit()
    expected.commit()
    state = native.state()
    assert state == expected.state()
    with pytest.raises(_native.NanoError, match="room for 32768 samples, and no more"):
        native.merge(state)
    assert native.state() == state
    native.step(far, 0)
    expected.learn(far, 0)
    assert native.state() == expected.state()
    assert expected.counts == [half // 2 + 1, half // 2] and expected.halvings == 1
    native.commit()
    expected.commit()
    assert native.state() == expected.state()


def samples_of(rng: np.random.Generator, count: int, features: int, classes: int) -> tuple[Int8, Any]:
    labels = rng.integers(0, classes, count)
    centres = rng.integers(-90, 90, (classes, features))
    return np.clip(centres[labels] + rng.normal(0, 25, (count, features)), -128, 127).astype(np.int8), labels


@pytest.mark.parametrize("trainer", ["lda", "prototype"])
def test_order_and_device_do_not_matter(trainer: str) -> None:
    """Any order, classes one after another, and the sums of three devices: the same bytes."""
    rng = np.random.default_rng(1)
    image = image_of(trainer, 12, 4)
    x, y = samples_of(rng, 150, 12, 4)
    together = _native.Head(image)
    together.learn_all(x, y)
    together.commit()
    for order in (rng.permutation(150), np.argsort(y, kind="stable"), np.arange(150)[::-1]):
        other = _native.Head(image)
        other.learn_all(x[order], y[order])
        other.commit()
        assert other.state() == together.state()
    fleet = [_native.Head(image) for _ in range(3)]
    for index, head in enumerate(fleet):
        head.learn_all(np.ascontiguousarray(x[index::3]), np.ascontiguousarray(y[index::3]))
        head.commit()
    for head in fleet[1:]:
        fleet[0].merge(head.state())
    fleet[0].commit()
    assert fleet[0].state() == together.state()


@pytest.mark.parametrize("trainer", ["lda", "prototype"])
def test_unlearnt_samples_leave_no_trace(trainer: str) -> None:
    rng = np.random.default_rng(2)
    image = image_of(trainer, 8, 3)
    x, y = samples_of(rng, 90, 8, 3)
    kept = y != 1
    head, never = _native.Head(image), _native.Head(image)
    head.learn_all(x, y)
    head.unlearn_all(x[~kept], y[~kept])
    never.learn_all(x[kept], y[kept])
    for one in (head, never):
        one.commit()
    assert head.state() == never.state()
    state = head.state()
    with pytest.raises(_native.NanoError, match="cannot unlearn a sample that it has not learnt"):
        head.unlearn_all(x[~kept][:1], y[~kept][:1])
    assert head.state() == state


def test_forgetting_does_not_disturb_the_others() -> None:
    """Whenever a class is forgotten, it gives the same bytes; and of its mean nothing is left."""
    rng = np.random.default_rng(3)
    image = image_of("lda", 8, 3)
    x, y = samples_of(rng, 120, 8, 3)
    early, late = _native.Head(image), _native.Head(image)
    first = y == 2
    early.learn_all(x[first], y[first])
    early.forget(2)
    early.learn_all(x[~first], y[~first])
    late.learn_all(x, y)
    late.forget(2)
    for head in (early, late):
        head.commit()
    assert early.state() == late.state()
    logits = late.logits(x)
    assert (logits[:, 2] == reference.NO_LOGIT).all()
    assert (logits.argmax(1) == y)[~first].mean() > 0.95
    prototype, never = (_native.Head(image_of("prototype", 8, 3)) for _ in range(2))
    prototype.learn_all(x, y)
    prototype.forget(2)
    never.learn_all(x[~first], y[~first])
    assert prototype.state() == never.state()


@pytest.mark.parametrize("count", [300, 12])
def test_it_is_close_to_float_lda(count: int) -> None:
    """Weights against a solution in float64: within 1 % of the largest, for 30 sweeps and 14 bits."""
    rng = np.random.default_rng(4)
    x, y = samples_of(rng, count, 16, 5)
    native = heads.LdaHead(image_of("lda", 16, 5))
    native.fit(torch.from_numpy(x), torch.from_numpy(y))
    real = x.astype(float) + 128
    means = np.stack([real[y == k].mean(0) for k in range(5)])
    scatter = (real - means[y]).T @ (real - means[y])
    freedom = count - 5
    matrix = scatter + (0.2 + (16 / (2 * freedom)) ** 2) * np.trace(scatter) / 16 * np.eye(16)
    centre = means.mean(0)
    centred = means - centre
    weights = np.linalg.solve(matrix, centred.T).T * freedom
    biases = -((means + centre) * weights).sum(1) / 2
    expected = real @ weights.T + biases
    found = native(torch.from_numpy(x)).numpy()
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_refused_states_and_samples_change_nothing() -> None:
    for trainer, prefix in (("lda", 5), ("prototype", 2)):
        rng = np.random.default_rng(5)
        head = _native.Head(image_of(trainer, 3, 2, 4))
        x, y = samples_of(rng, 20, 3, 2)
        head.learn_all(x, y)
        head.commit()
        good = head.state()
        words = np.frombuffer(good, "<i4")
        sums = prefix + 4
        changes = [
            (0, 1, "classes in use"),
            (0, 5, "classes in use"),
            (prefix, -1, "samples of a class"),
            (prefix, 2**17, "samples of a class"),
            (prefix + 3, 1, "samples of a class"),
            (sums, 255 * 20 + 1, "head sum"),
            (sums, -1, "head sum"),
        ]
        if trainer == "lda":
            products = sums + 12
            changes += [
                (1, -1, "head samples"),
                (1, 2**15, "head samples"),
                (3, 100, "head exponent"),
                (4, 0, "degrees of freedom"),
                (products, -1, "sum of squares"),
                (products + 1, 65025 * 20 + 1, "sum of products"),
                (products + 6, 2**30 + 1, "head bias"),
                (products + 10, 16385, "head weight"),
            ]
        for index, value, message in changes:
            wrong = words.copy()
            wrong[index] = value
            with pytest.raises(_native.NanoError, match=message):
                head.load(wrong.tobytes())
            with pytest.raises(_native.NanoError, match=message):
                head.merge(wrong.tobytes())
            assert head.state() == good
        for state in (b"", good[:-1], good + b"\0"):
            with pytest.raises(_native.NanoError, match="saved head has length"):
                head.load(state)
        with pytest.raises(_native.NanoError, match="label 2 is not below the number of classes, 2"):
            head.step(x[0], 2)
        with pytest.raises(_native.NanoError, match="features has length 2, 3 is needed"):
            head.step(x[0][:2], 0)
        with pytest.raises(_native.NanoError, match="label 2 is not below"):
            head.forget(2)
        with pytest.raises(_native.NanoError, match="cannot learn from a sample more than once"):
            head.train(x, y, 1)
        assert head.state() == good
        assert [head.add_class(), head.add_class()] == [2, 3]
        with pytest.raises(_native.NanoError, match="room for 4 classes"):
            head.add_class()


@pytest.mark.parametrize("seed", range(20))
def test_states_that_no_samples_lead_to_are_solved_without_overflow(seed: int) -> None:
    """Each number within its bounds, but together nonsense: a matrix that is not even positive."""
    rng = np.random.default_rng(seed)
    features = int(rng.choice([1, 2, 7, 16]))
    native, expected = twins("lda", features, 3, zero_point=0, shrinkage=2**-16)
    counts = rng.multinomial(1 << 15, [1 / 3] * 3)
    expected.counts = counts.tolist()
    ends = rng.choice([-128, 127], (3, features))
    expected.sums = counts[:, None] * ends
    high = 65025 << 15
    products = rng.choice([-high, high, 0], (features, features))
    expected.products = np.triu(products) + np.triu(products, 1).T
    np.fill_diagonal(expected.products, np.abs(expected.products.diagonal()))
    native.load(expected.state())
    native.commit()
    state = native.state()
    native.load(state)
    native.logits(np.full((1, features), -128, np.int8))
    # Committing changes no sum.
    sums = slice(20, 20 + 4 * 3 * (1 + features))
    assert state[sums] == expected.state()[sums]


def test_a_prototype_with_a_half_life_forgets_when_it_is_surprised() -> None:
    """A class that moves: the sample that is not recognised leaves one of those before it."""
    zeros = np.zeros((2, 2), np.float32), np.zeros(2, np.float32)
    image = head_alone(*zeros, scale=1.0, zero_point=0, settings=heads.Prototype(half_life=50))
    head = heads.PrototypeHead(image)
    at = {"old": [100, 0], "new": [-100, 40], "other": [-100, -100]}
    moved = torch.tensor([at["old"]] * 20 + [at["new"]], dtype=torch.int8)
    head.fit(torch.tensor([at["other"]], dtype=torch.int8), [1])
    head.fit(moved[:20], [0] * 20)
    assert int(head.predict(moved[20:])[0]) == 1
    head.fit(moved[20:], [0])
    assert int(head.predict(moved[20:])[0]) == 0
    # Of 20 samples one is left, and the new one: their mean is half way.
    assert np.frombuffer(head.state(), "<u4")[2] == 2
