"""The emulated rv32imc board against nano-core on this machine: every byte of the heads, in 10,000 random
steps of each trainer. Other tests compare nano-core with the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch_nano as tn
from images import head_alone
from torch_nano import _native, heads

from .random_samples import Int8, random_features

FEATURES, ZERO_POINT, STEPS = 13, -3, 10_000
OUTPUTS = {"cross_entropy": 5, "binary": 5, "squared": 1}
LEAST_RATE, LARGEST_RATE = 1.4e-8, 14.0


def image_of(settings: heads.HeadSettings, outputs: int = 5) -> bytes:
    """A head whose features are the model's input."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (outputs, FEATURES)).astype(np.float32)
    biases = np.zeros(outputs, np.float32)
    return head_alone(weights, biases, scale=0.05, zero_point=ZERO_POINT, settings=settings)


def random_target(rng: np.random.Generator, loss: str) -> tuple[Any, int]:
    """A label as the client takes it, and as nano-core does."""
    if loss == "cross_entropy":
        label = int(rng.integers(OUTPUTS[loss]))
        return label, label
    if loss == "binary":
        right = rng.random(OUTPUTS[loss]) < 0.5
        return right.tolist(), int(right @ (1 << np.arange(len(right))))
    value = int(rng.choice([0, rng.integers(-9999, 9999), -(2**31) + 1, 2**31 - 1]))
    return value / 4096, value


def descent(loss: heads.Loss, learning_rate: float, **options: Any) -> heads.SGD:
    # Squared error counts in 1/4096, the others in 1/32768: so much smaller are its rates.
    return heads.SGD(learning_rate / (8 if loss == "squared" else 1), loss, **options)


@pytest.mark.parametrize("loss", OUTPUTS)
@pytest.mark.parametrize("beyond", [LEAST_RATE / 1.1, LARGEST_RATE * 1.1])
def test_the_extreme_rates_are_at_the_limits(loss: heads.Loss, beyond: float) -> None:
    with pytest.raises(_native.SettingError, match="learning_rate is"):
        image_of(descent(loss, beyond), OUTPUTS[loss])


@pytest.mark.parametrize("loss", OUTPUTS)
@pytest.mark.parametrize("learning_rate", [LEAST_RATE, 0.003, 0.05, 1.0, LARGEST_RATE])
def test_10_000_steps_of_gradient_descent_are_those_of_the_reference(
    loss: heads.Loss, learning_rate: float
) -> None:
    rng = np.random.default_rng(1)
    several = OUTPUTS[loss] > 1
    settings = descent(
        loss,
        learning_rate,
        halve_every=7,
        class_weights=(1, 2, 0.5, 3, 1) if several else (),
        frozen=(2,) if several else (),
        half_life=9 if learning_rate == 0.05 else None,
    )
    image = image_of(settings, OUTPUTS[loss])
    twin = _native.Head(image)
    with tn.Device(tn.device.QemuBoard(image)) as device:
        features: list[Int8] = []
        targets: list[int] = []
        for epochs in [9] * 10 + [2, 18, 1] * 5:
            for _ in range(5):
                features.append(random_features(rng, FEATURES, ZERO_POINT))
                label, target = random_target(rng, loss)
                targets.append(target)
                device.learn(features[-1], label)
            device.train(epochs)
            twin.train(np.stack(features), np.array(targets), epochs)
            assert device.head_state() == twin.state(), f"{len(targets)} samples"
            prediction = device.predict(features[-1])
            assert prediction.logits.tolist() == twin.logits(features[-1][None])[0].tolist()
        assert device.stats().steps >= STEPS


@pytest.mark.parametrize("learning_rate", ["auto", 0.02])
def test_rates_by_the_features_and_judged_trainings_are_those_of_this_machine(learning_rate: Any) -> None:
    """Samples around a centre for each class, a third of them with a wrong label: some trainings are taken
    back."""
    rng = np.random.default_rng(3)
    image = image_of(heads.SGD(learning_rate, halve_every=4, guard=5))
    twin = _native.Head(image)
    centres = rng.integers(-100, 100, (5, FEATURES))
    taken_back = []
    with tn.Device(tn.device.QemuBoard(image)) as device:
        features: list[Int8] = []
        targets: list[int] = []
        for _ in range(30):
            for kind in rng.integers(0, 5, 6).tolist():
                sample = centres[kind] + rng.integers(-28, 28, FEATURES)
                features.append(sample.astype(np.int8))
                targets.append(kind if rng.random() < 0.7 else int(rng.integers(5)))
                device.learn(features[-1], targets[-1])
            before = twin.state()
            device.train(8)
            taken_back.append(twin.train(np.stack(features), np.array(targets), 8))
            assert device.head_state() == twin.state(), f"{len(targets)} samples"
            assert (twin.state() == before) == taken_back[-1]
        assert device.stats().taken_back == sum(taken_back) and len(set(taken_back)) == 2


@pytest.mark.parametrize(
    "settings",
    [heads.LDA(), heads.Prototype(), heads.LDA(half_life=30), heads.Prototype(half_life=7)],
    ids=["lda", "prototype", "fading lda", "fading prototype"],
)
def test_10_000_samples_of_sums_are_those_of_the_reference(settings: heads.HeadSettings) -> None:
    rng = np.random.default_rng(2)
    image = image_of(settings)
    twin = _native.Head(image)
    with tn.Device(tn.device.QemuBoard(image)) as device:
        for count in range(STEPS):
            features, label = random_features(rng, FEATURES, ZERO_POINT), int(rng.integers(5))
            device.learn(features, label)
            twin.step(features, label)
            if count % 250 == 0:
                device.commit()
                twin.commit()
                assert device.head_state() == twin.state(), f"{count + 1} samples"
                logits = device.predict(features).logits
                assert logits.tolist() == twin.logits(features[None])[0].tolist()
        device.forget(3)
        twin.forget(3)
        device.commit()
        twin.commit()
        assert device.head_state() == twin.state()
