"""The oracle itself: against float SGD, at its limits, and its order of visits."""

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from . import sgd_head
from .sgd_head import HALVE_ABOVE, SATURATE, SKIP, SgdHead, Xorshift32, fits

SCALE, ZERO_POINT = 0.03, -128


def random_head(rng: np.random.Generator, lr: float = 0.05, capacity: int = 64) -> tuple[SgdHead, int]:
    classes, features = int(rng.integers(2, 12)), int(rng.integers(1, 80))
    weight, bias = rng.normal(0, 0.3, (classes, features)), rng.normal(0, 0.3, classes)
    return SgdHead.from_float(
        weight, bias, feature_scale=SCALE, feature_zero_point=ZERO_POINT, lr=lr, capacity=capacity
    ), features


def real_weight(head: SgdHead) -> np.ndarray:
    return (head.stored - 128) * head.weight_scale * 2.0**head.exponent / 256


def test_the_docstrings_hold() -> None:
    assert doctest.testmod(sgd_head).failed == 0


@pytest.mark.parametrize("seed", range(50))
def test_one_step_is_float_sgd(seed: int) -> None:
    rng = np.random.default_rng(seed)
    head, features = random_head(rng)
    q = rng.integers(-128, 128, features)
    label = int(rng.integers(len(head.stored)))
    before, error = real_weight(head), head.errors(q, label) / 2**15

    x = torch.tensor(SCALE * head.inputs(q).astype(float))
    used = torch.tensor((head.stored >> 8) * head.weight_scale, requires_grad=True)
    torch.nn.functional.cross_entropy((used @ x)[None], torch.tensor([label])).backward()
    softmax = torch.softmax(used @ x, 0).detach().numpy()
    # u is in 1/256 octaves: a relative error of 2^-8 * ln 2 = 0.27 % in p, and as much again in the sum.
    # p and e are then cut to Q15; M's 16 bits are exact to 1/4096 of a u where p is not yet 0.
    assert np.abs(error - (softmax - np.eye(len(softmax))[label])).max() < 2 * 0.0028 + 4 / 2**15

    head.step(q, label)
    taken = np.where(np.abs(error) * 2**15 > SKIP, error, 0)
    step = -0.05 * np.outer(taken, x.numpy())
    # C has 15 bits, g is rounded to +-1/2 and V to +-1/2: in units of V, 1/2 + x/2 * 2^-sh.
    unit = head.weight_scale / 256
    bound = unit * (0.5 + head.inputs(q).max() / 2 ** (head.update_shift + 1)) + np.abs(step) * 2**-15
    assert (np.abs(real_weight(head) - before - step) <= bound + 1e-12).all()


@pytest.mark.parametrize("seed", range(20))
def test_extreme_values_neither_overflow_nor_escape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    head, features = random_head(rng, lr=float(10 ** rng.uniform(-3, 0.5)))
    for _ in range(200):
        q = rng.choice([-128, 127], features)
        head.step(q, int(rng.integers(len(head.stored))))
        v = head.stored - 128
        assert np.abs(v).max() <= HALVE_ABOVE and np.abs(head.stored >> 8).max() <= 127


def test_halving_keeps_the_real_weights_and_the_learning_rate() -> None:
    stored = np.array([[HALVE_ABOVE, 0], [0, -4000]]) + 128
    head = SgdHead(
        stored, weight_scale=0.01, feature_scale=SCALE, feature_zero_point=ZERO_POINT, lr=0.05, capacity=1
    )
    shifts = head.softmax_shift, head.update_shift
    head.step([127], 0)  # right by far: below SKIP, nothing moves
    assert head.exponent == 0 and (head.stored == stored).all()
    head.stored[0, 0] += 1
    head.step([127], 0)
    assert (head.exponent, head.softmax_shift, head.update_shift) == (1, shifts[0] - 1, shifts[1] + 1)
    assert (head.stored - 128).tolist() == [[(HALVE_ABOVE + 1) // 2, 0], [0, -2000]]


def test_without_room_to_halve_weights_saturate() -> None:
    head = SgdHead(
        np.full((2, 2), 128),
        weight_scale=1e-6,
        feature_scale=1.0,
        feature_zero_point=-128,
        lr=1e-6,
        capacity=1,
    )
    head.update_shift = sgd_head.MAX_UPDATE_SHIFT
    head.stored[:] = [[SATURATE + 128, 128], [128, 128]]
    head.step([127], 1)
    assert head.exponent == 0 and np.abs(head.stored - 128).max() == SATURATE


def test_learning_rate_out_of_reach_is_an_error() -> None:
    for lr in (1e-12, 1e9):
        with pytest.raises(ValueError, match=f"lr {lr}"):
            random_head(np.random.default_rng(0), lr=lr)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 30, 64])
def test_every_epoch_visits_every_sample_once_by_one_stride(count: int) -> None:
    head, features = random_head(np.random.default_rng(count))
    for _ in range(count):
        head.record([0] * features, 0)
    random = Xorshift32(sgd_head.XORSHIFT_SEED)
    for _ in range(10):
        order = head.visits()
        assert sorted(order) == list(range(count))
        candidate, offset = 1 + random.next() % max(count - 1, 1), random.next() % count
        assert order[0] == offset
        strides = {(b - a) % count for a, b in pairwise(order)}
        upwards = [s for s in [*range(candidate, count), *range(1, count)] if math.gcd(s, count) == 1]
        assert strides == set(upwards[:1])


def test_ring_replaces_the_oldest() -> None:
    head, features = random_head(np.random.default_rng(0), capacity=3)
    for label, q in enumerate([10, 20, 30, 40]):
        head.record([q] * features, label % 2)
    assert [int(q[0]) for q, _ in head.ring] == [20, 30, 40] and [y for _, y in head.ring] == [1, 0, 1]


def test_empty_ring_draws_nothing() -> None:
    head, _ = random_head(np.random.default_rng(0))
    head.train(epochs=3)
    assert head.random.state == sgd_head.XORSHIFT_SEED


def test_overflow_is_caught() -> None:
    assert fits(2**31 - 1, 32) == 2**31 - 1 and fits(-(2**31), 32) == -(2**31)
    for value, signed in [(2**31, True), (-(2**31) - 1, True), (-1, False), (2**32, False)]:
        with pytest.raises(AssertionError, match="overflows 32 bits"):
            fits(value, 32, signed)
