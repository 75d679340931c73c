"""The emulated rv32imc board against nano-core here, which other tests hold to the definitions: every byte of
the heads, through more than 10,000 random steps in all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch_nano as tn
from images import head_alone
from torch_nano import _native, heads

FEATURES, CLASSES = 13, 5

Int8 = npt.NDArray[np.int8]


def random_features(rng: np.random.Generator) -> Int8:
    """All of int8, its ends alone, or little around the zero point."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(-128, 128, FEATURES, np.int8)
    if kind == 1:
        return rng.choice(np.array([-128, 127], np.int8), FEATURES)
    return rng.integers(-6, 1, FEATURES, np.int8)


def image_of(settings: heads.HeadSettings) -> bytes:
    """A head whose features are the model's input."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (CLASSES, FEATURES)).astype(np.float32)
    return head_alone(weights, np.zeros(CLASSES, np.float32), scale=0.05, zero_point=-3, settings=settings)


@pytest.mark.parametrize("learning_rate", [0.003, 0.05, 1.0])
def test_1_700_steps_of_gradient_descent(learning_rate: float) -> None:
    rng = np.random.default_rng(1)
    image = image_of(heads.Sgd(learning_rate, halve_every=7, class_weights=(1, 2, 0.5, 3, 1), frozen=(2,)))
    twin = _native.Head(image)
    with tn.Device(tn.QemuBoard(image)) as device:
        features: list[Int8] = []
        labels: list[int] = []
        for epochs in [9] * 5 + [2] * 10:
            for _ in range(5):
                features.append(random_features(rng))
                labels.append(int(rng.integers(CLASSES)))
                device.learn(features[-1], labels[-1])
            device.train(epochs)
            twin.train(np.stack(features), np.array(labels), epochs)
            assert device.head_state() == twin.state()
            prediction = device.predict(features[-1])
            assert prediction.logits.tolist() == twin.logits(features[-1][None])[0].tolist()


@pytest.mark.parametrize("settings", [heads.Lda(), heads.Prototype()], ids=["lda", "prototype"])
def test_2_750_samples_of_sums(settings: heads.HeadSettings) -> None:
    rng = np.random.default_rng(2)
    image = image_of(settings)
    twin = _native.Head(image)
    with tn.Device(tn.QemuBoard(image)) as device:
        for count in range(2750):
            features, label = random_features(rng), int(rng.integers(CLASSES))
            device.learn(features, label)
            twin.step(features, label)
            if count % 250 == 0:
                device.commit()
                twin.commit()
                assert device.head_state() == twin.state()
                logits = device.predict(features).logits
                assert logits.tolist() == twin.logits(features[None])[0].tolist()
        device.forget(3)
        twin.forget(3)
        device.commit()
        twin.commit()
        assert device.head_state() == twin.state()
