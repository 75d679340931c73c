"""nano-core's SgdHead against its definition in Python integers: every byte of the state after every step."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from images import head_alone, one_layer
from reference import sgd_head as reference
from torch_nano import _native
from torch_nano.heads.sgd import SgdHead as SgdHeadModule

from .random_samples import Int8, random_features


def state_of(head: reference.SgdHead) -> bytes:
    """As the device stores it: exponent, random state, V + 128."""
    words = struct.pack("<II", head.exponent, head.random.state)
    return words + head.stored.astype("<i2").tobytes()


def load(head: reference.SgdHead, state: bytes) -> None:
    exponent, random = struct.unpack_from("<II", state)
    head.softmax_shift -= exponent - head.exponent
    head.update_shift += exponent - head.exponent
    head.exponent, head.random.state = exponent, random
    head.stored = np.frombuffer(state[8:], "<i2").astype(np.int64).reshape(head.stored.shape)


@dataclass
class Twins:
    """The same head twice."""

    native: _native.Head
    reference: reference.SgdHead
    image: bytes

    @classmethod
    def of(
        cls,
        weights: npt.ArrayLike,
        biases: npt.ArrayLike,
        *,
        scale: float = 0.03,
        zero_point: int = -128,
        lr: float = 0.05,
        capacity: int = 1,
    ) -> Twins:
        real, bias, scale = np.float32(weights), np.float32(biases), float(np.float32(scale))
        twin = reference.SgdHead.from_float(
            real, bias, feature_scale=scale, feature_zero_point=zero_point, lr=lr, capacity=capacity
        )
        image = head_alone(real, bias, scale=scale, zero_point=zero_point, learning_rate=lr)
        return cls(_native.Head(image), twin, image)

    @property
    def largest_exponent(self) -> int:
        head = self.reference
        room = min(head.softmax_shift, reference.MAX_UPDATE_SHIFT - head.update_shift)
        return head.exponent + room

    def step(self, q: Int8, label: int) -> None:
        self.native.step(q, label)
        self.reference.step(q, label)

    def load(self, state: bytes) -> None:
        self.native.load(state)
        load(self.reference, state)

    def check(self) -> None:
        assert self.native.state() == state_of(self.reference)

    def check_logits(self, q: Int8) -> None:
        assert self.native.logits(q[None])[0].tolist() == self.reference.scores(q).tolist()


@pytest.mark.parametrize("seed", range(80))
def test_random_steps_are_those_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, width = int(rng.integers(1, 13)), int(rng.integers(1, 41))
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    weights = rng.normal(0, 10 ** rng.uniform(-2, 0.5), (classes, width))
    scale = 10 ** rng.uniform(-2.5, -1)
    # A step may not be larger than the weights are: beyond that both refuse, as another test shows.
    lr = 10 ** rng.uniform(-3, -0.05) * float(np.abs(weights).max()) / scale
    biases = rng.normal(0, 1, classes)
    twins = Twins.of(weights, biases, scale=scale, zero_point=zero_point, lr=lr)
    twins.check()
    start = twins.native.state()
    for _ in range(60):
        q = random_features(rng, width, zero_point)
        twins.check_logits(q)
        twins.step(q, int(rng.integers(classes)))
        twins.check()
    # One class is always right: nothing to learn.
    assert (twins.native.state() != start) == (classes > 1)


def test_every_label_of_every_size_is_learnt() -> None:
    rng = np.random.default_rng(0)
    for classes in range(1, 9):
        for label in range(classes):
            twins = Twins.of(rng.normal(0, 0.3, (classes, 5)), rng.normal(0, 0.3, classes))
            for _ in range(3):
                twins.step(rng.integers(-128, 128, 5, np.int8), label)
                twins.check()


@pytest.mark.parametrize("zero_point", [-128, -1, 0, 127])
@pytest.mark.parametrize("q", [-128, 127])
def test_features_at_the_ends_of_int8_are_learnt(zero_point: int, q: int) -> None:
    twins = Twins.of([[0.5, -0.5], [0.1, 0.2], [-0.3, 0.4]], [0.1, 0, -0.1], zero_point=zero_point)
    for count in range(100):
        features = np.full(2, q, np.int8)
        twins.check_logits(features)
        twins.step(features, count // 7 % 3)
        twins.check()


def test_learning_rates_up_to_the_limits_and_no_further() -> None:
    """Both definitions draw the line at the same power of two, and agree right up to it."""
    rng = np.random.default_rng(1)
    weights, biases = rng.normal(0, 0.3, (3, 6)), np.zeros(3)
    accepted = []
    for exponent in range(-60, 60):
        for lr in (2.0**exponent, 1.7 * 2.0**exponent):
            try:
                twins = Twins.of(weights, biases, lr=lr)
            except ValueError:
                with pytest.raises(_native.SettingError, match=r"learning_rate is .*; expected .* to "):
                    head_alone(
                        np.float32(weights), np.float32(biases), scale=0.03, zero_point=-128, learning_rate=lr
                    )
                continue
            accepted.append(lr)
            for _ in range(10):
                twins.step(rng.choice(np.array([-128, 127], np.int8), 6), int(rng.integers(3)))
                twins.check()
    # The update shift goes from 1 to 30.
    assert 2**28 <= max(accepted) / min(accepted) <= 2**31


def test_halvings_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(2)
    twins = Twins.of(rng.normal(0, 0.01, (3, 4)), np.zeros(3), lr=0.5)
    exponents, scales = {0}, {twins.native.logit_scale}
    for _ in range(200):
        twins.step(rng.choice(np.array([-128, 127], np.int8), 4), int(rng.integers(3)))
        twins.check()
        exponents.add(twins.reference.exponent)
        scales.add(twins.native.logit_scale)
    assert exponents >= {0, 1, 2, 3}, "too few halvings to test anything"
    # A halving doubles what a unit of a logit is worth.
    assert scales == {min(scales) * 2**exponent for exponent in exponents}


@pytest.mark.parametrize("seed", range(20))
def test_halvings_go_on_from_loaded_states(seed: int) -> None:
    """States right at the thresholds: before the last halving, and after it, where weights saturate."""
    rng = np.random.default_rng(seed)
    twins = Twins.of(rng.normal(0, 0.3, (3, 5)), np.zeros(3), lr=0.1)
    last = twins.largest_exponent
    assert last >= 2
    for exponent in (0, last - 1, last):
        largest = reference.SATURATE if exponent == last else reference.HALVE_ABOVE
        v = rng.choice([-largest, largest, largest - 1, 0], (3, 6))
        state = struct.pack("<II", exponent, int(rng.integers(1, 2**32))) + (v + 128).astype("<i2").tobytes()
        twins.load(state)
        twins.check()
        for _ in range(30):
            twins.step(rng.choice(np.array([-128, 127], np.int8), 5), int(rng.integers(3)))
            twins.check()
        assert exponent <= twins.reference.exponent <= last
    assert twins.reference.exponent == last


def test_a_zero_head_learns() -> None:
    rng = np.random.default_rng(3)
    twins = Twins.of(np.zeros((4, 8)), np.zeros(4))
    assert not twins.native.logits(np.full((1, 8), 127, np.int8)).any()
    centres = rng.integers(-128, 128, (4, 8))
    for count in range(200):
        q = np.clip(centres[count % 4] + rng.integers(-20, 21, 8), -128, 127).astype(np.int8)
        twins.step(q, count % 4)
        twins.check()
    found = twins.native.logits(centres.astype(np.int8)).argmax(1)
    assert found.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 30, 64])
def test_training_visits_the_ring_in_the_same_order(count: int) -> None:
    """Steps do not commute, so another order would leave other bytes."""
    rng = np.random.default_rng(count)
    twins = Twins.of(rng.normal(0, 0.3, (3, 10)), np.zeros(3), capacity=count)
    features = rng.integers(-128, 128, (count, 10), np.int8)
    labels = rng.integers(0, 3, count).astype(np.int64)
    for q, label in zip(features, labels, strict=True):
        twins.reference.record(q, int(label))
    for epochs in (1, 3, 0, 2):
        twins.native.train(features, labels, epochs)
        twins.reference.train(epochs)
        twins.check()
    at_once = _native.Head(twins.image)
    at_once.train(features, labels, 6)
    assert at_once.state() == twins.native.state()


def test_training_on_nothing_changes_nothing() -> None:
    twins = Twins.of([[0.1, 0.2]], [0.3])
    twins.native.train(np.zeros((0, 2), np.int8), np.zeros(0, np.int64), 10)
    twins.reference.train(10)
    twins.check()


def test_the_first_of_equal_logits_is_predicted() -> None:
    rows = [[0.1, 0.1], [0.4, 0.4], [0.4, 0.4], [0.2, 0.2], [0.4, 0.4]]
    twins = Twins.of(rows, [0, 0, 0, 0, 0])
    module = SgdHeadModule(twins.image)
    for value, expected in [(127, 1), (-128, 0)]:
        q = np.full(2, value, np.int8)
        assert twins.reference.predict(q) == expected
        assert module.predict(torch.from_numpy(q[None])).tolist() == [expected]


def test_a_state_goes_on_where_it_was_taken() -> None:
    rng = np.random.default_rng(5)
    steps = [(rng.integers(-128, 128, 6, np.int8), int(rng.integers(3))) for _ in range(40)]
    features = rng.integers(-128, 128, (5, 6), np.int8)
    twins = Twins.of(rng.normal(0, 0.3, (3, 6)), np.zeros(3))
    start = twins.native.state()
    for q, label in steps[:20]:
        twins.native.step(q, label)
    twins.native.train(features, np.arange(5, dtype=np.int64) % 3, 1)
    saved = twins.native.state()
    for q, label in steps[20:]:
        twins.native.step(q, label)
    end = twins.native.state()
    assert len({start, saved, end}) == 3

    other = _native.Head(twins.image)
    assert other.state() == start
    other.load(saved)
    assert other.state() == saved
    for q, label in steps[20:]:
        other.step(q, label)
    assert other.state() == end
    other.reset()
    assert other.state() == start


def test_refused_states_change_nothing() -> None:
    twins = Twins.of([[0.1, 0.2], [0.3, -0.4]], [0.0, 0.1])
    head = twins.native
    head.step(np.array([5, -7], np.int8), 1)
    good = head.state()
    assert len(good) == 8 + 2 * 2 * 3
    exponent, random, weights = good[:4], good[4:8], good[8:]
    last = struct.pack("<I", twins.largest_exponent)
    beyond = struct.pack("<I", twins.largest_exponent + 1)
    for state, message in [
        (b"", "saved head has length 0, 20 is needed"),
        (good[:-1], "saved head has length 19, 20 is needed"),
        (good + b"\0", "saved head has length 21, 20 is needed"),
        (beyond + random + weights, "head exponent"),
        (b"\xff" * 4 + random + weights, "head exponent holds 4294967295"),
        (exponent + bytes(4) + weights, "head random state holds 0"),
        (exponent + random + struct.pack("<h", 32129) + weights[2:], "head weight holds 32001"),
        (exponent + random + weights[:-2] + struct.pack("<h", -31873), "head weight holds -32001"),
        (last + random + struct.pack("<h", -32512) + weights[2:], "head weight holds -32640"),
    ]:
        with pytest.raises(_native.NanoError, match=message):
            head.load(state)
        assert head.state() == good
    for state in (last + random + struct.pack("<h", 32767) + weights[2:], good):
        head.load(state)
        assert head.state() == state


def test_refused_samples_change_nothing() -> None:
    twins = Twins.of(np.ones((3, 4)), np.zeros(3))
    head, right = twins.native, np.zeros(4, np.int8)
    before = head.state()
    with pytest.raises(_native.NanoError, match="label 3 is not below the number of classes, 3"):
        head.step(right, 3)
    with pytest.raises(OverflowError):
        head.step(right, -1)
    for width in (0, 3, 5):
        with pytest.raises(_native.NanoError, match=f"features has length {width}, 4 is needed"):
            head.step(np.zeros(width, np.int8), 0)
        with pytest.raises(_native.NanoError, match=f"features has length {width}, 4 is needed"):
            head.logits(np.zeros((1, width), np.int8))
    labels = np.zeros(2, np.int64)
    with pytest.raises(_native.NanoError, match="features has length 5, 4 is needed"):
        head.train(np.zeros((2, 5), np.int8), labels, 1)
    with pytest.raises(_native.NanoError, match="ring features"):
        head.train(np.zeros((2, 0), np.int8), labels, 1)
    with pytest.raises(_native.NanoError, match="labels has length 2, 3 is needed"):
        head.train(np.zeros((3, 4), np.int8), labels, 1)
    with pytest.raises(_native.NanoError, match="label 9 is not below"):
        head.train(np.zeros((2, 4), np.int8), np.array([0, 9], np.int64), 1)
    for wrong in (np.zeros(4, np.float32), np.zeros((1, 4), np.int8), [0, 0, 0, 0]):
        with pytest.raises(TypeError):
            head.step(wrong, 0)  # type: ignore[arg-type]
    assert head.state() == before


def test_an_image_without_a_head_has_none() -> None:
    with pytest.raises(_native.NanoError, match="this image has no trainable head"):
        _native.Head(one_layer())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["first weight", "last weight", "bias"])
def test_weights_that_are_not_finite_are_refused(value: float, place: str) -> None:
    weights, biases = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    target, index = {
        "first weight": (weights, (0, 0)),
        "last weight": (weights, (1, 2)),
        "bias": (biases, (1,)),
    }[place]
    target[index] = value
    with pytest.raises(_native.NanoError, match="the weights hold NaN or infinity"):
        head_alone(weights, biases, scale=0.1, zero_point=0, learning_rate=0.1)


@pytest.mark.parametrize("learning_rate", [1e-12, 1e12])
def test_bad_learning_rates_are_refused(learning_rate: float) -> None:
    weights, biases = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(_native.SettingError, match="learning_rate is"):
        head_alone(weights, biases, scale=0.1, zero_point=0, learning_rate=learning_rate)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(_native.NanoError, match=r"needs classes \* features weights, has"):
        head_alone(
            np.ones((2, 3), np.float32), np.ones(4, np.float32), scale=0.1, zero_point=0, learning_rate=0.1
        )
