"""Heads that start from the factory's samples: nano-core against plain integers, and what they gain."""

from __future__ import annotations

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


def image_of(start: dict[str, Any], capacity: int, zero_point: int, shrinkage: float = 0.2) -> bytes:
    class Settings(heads.LDA):
        def description(self, weights: Any, biases: Any) -> dict[str, Any]:
            return {**super().description(weights, biases), "start": start}

    weights, biases = start["weights"], start["biases"]
    settings = Settings(shrinkage=shrinkage, capacity=capacity)
    return head_alone(weights, biases, scale=SCALE, zero_point=zero_point, settings=settings)


@pytest.mark.parametrize("seed", range(25))
def test_5_000_random_requests_are_those_of_the_reference(seed: int) -> None:
    """200 for each of 25 heads."""
    rng = np.random.default_rng(seed)
    features, capacity = int(rng.integers(1, 25)), int(rng.integers(1, 9))
    classes = int(rng.integers(1, capacity + 1))
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    shrinkage = float(rng.choice([1.0, 0.2, 2**-16]))
    start = described_start(rng, features, classes, zero_point)
    native = _native.Head(image_of(start, capacity, zero_point, shrinkage))
    known = reference.Start.of(**start, scale=float(np.float32(SCALE)), zero_point=zero_point)
    expected = reference.LdaHead(
        classes=classes,
        capacity=capacity,
        features=features,
        zero_point=zero_point,
        shrinkage=shrinkage,
        start=known,
    )
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
    native = _native.Head(image_of(start, 2, zero_point, 1.0))
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
