"""What predictions mean: integers against their definition, here and on devices, and what they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch_nano as tn
from images import head_alone
from torch_nano import heads
from torch_nano.errors import HeadError, InputError

from .random_samples import random_features

SCALE = 0.05
FALSE_ALARMS = 0.05


def image_of(settings: heads.HeadSettings, rejection: dict[str, Any], zero_point: int) -> bytes:
    """A head of three classes and five features with this rejection."""
    rng = np.random.default_rng(0)
    weights, biases = rng.normal(0, 0.3, (3, 5)).astype(np.float32), np.zeros(3, np.float32)

    class Rejecting:
        def description(self, weights: Any, biases: Any) -> dict[str, Any]:
            return {**settings.description(weights, biases), "rejection": rejection}

    rejecting: Any = Rejecting()
    return head_alone(weights, biases, scale=SCALE, zero_point=zero_point, settings=rejecting)


def distance(
    x: npt.NDArray[np.int8], learnt: list[npt.NDArray[np.int8]], rejection: dict[str, Any], zero_point: int
) -> int:
    """The definition: to the means of what was learnt, and to centres for classes that were not."""
    found = []
    for centre, samples in zip(rejection["centres"].astype(int), learnt, strict=True):
        count = len(samples)
        if count == 0:
            found.append(sum((int(q) - int(c)) ** 2 for q, c in zip(x, centre, strict=True)))
            continue
        sums = [sum(int(q) - zero_point for q in column) for column in samples.T]
        square = sum((count * (int(q) - zero_point) - s) ** 2 for q, s in zip(x, sums, strict=True))
        found.append(max(square // count**2 - rejection["variance"] // count, 0))
    return min(found)


@pytest.mark.parametrize(
    "settings", [heads.LDA(), heads.Prototype(), heads.SGD()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("seed", range(20))
def test_distances_are_those_of_the_definition(settings: heads.HeadSettings, seed: int) -> None:
    rng = np.random.default_rng(seed)
    zero_point = int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))
    rejection = {
        "temperature": int(rng.integers(-512, 513)),
        "centres": rng.integers(-128, 128, (3, 5)).astype(np.int8),
        "variance": int(rng.choice([0, 500, 2**32 - 1])),
        "limit": int(rng.choice([0, 20_000, 2**32 - 1])),
    }
    head = heads.head_of(image_of(settings, rejection, zero_point))
    learnt = [
        np.stack([random_features(rng, 5, zero_point) for _ in range(9)])[: rng.integers(9)] for _ in range(3)
    ]
    if isinstance(settings, heads.SGD):
        learnt = [samples[:0] for samples in learnt]
    for one, samples in enumerate(learnt):
        if len(samples):
            head.fit(torch.from_numpy(samples), torch.full((len(samples),), one))
    x = np.stack([random_features(rng, 5, zero_point) for _ in range(50)])
    made = head.certainty(torch.from_numpy(x))
    expected = [distance(sample, learnt, rejection, zero_point) for sample in x]
    assert made.distance.tolist() == expected, f"seed {seed}"
    assert made.known.tolist() == [one <= rejection["limit"] for one in expected], f"seed {seed}"
    assert ((made.margin <= made.confidence) & (made.confidence <= 1)).all()


def blobs(seed: int, count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping clouds: inputs [count, 6], and their classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return torch.randn(count, 6, generator=generator) + 3 * torch.eye(6)[y], y


def rejecting(settings: heads.HeadSettings, **options: Any) -> tn.NanoModule:
    """A model of three classes of the clouds, trained on its factory's."""
    torch.manual_seed(0)
    x, y = blobs(0, 300, 3)
    layer = torch.nn.Linear(12, 3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), layer)
    tn.fit(model, (x, y), epochs=10, learning_rate=0.01, progress=False)
    wide, _ = blobs(5, 300, 5)
    rejection = heads.Rejection(blobs(1, 1000, 3), false_alarms=FALSE_ALARMS, **options)
    return tn.to_nano(model, x, calibrate=wide, head=settings, rejection=rejection)


TRAINERS = [heads.SGD(0.05), heads.LDA(capacity=4), heads.Prototype(capacity=4)]


@pytest.mark.parametrize("settings", TRAINERS, ids=lambda one: type(one).__name__)
def test_confidence_is_calibrated_and_false_alarms_are_as_wanted(settings: heads.HeadSettings) -> None:
    nano = rejecting(settings)
    head: Any = nano.head
    x, y = blobs(2, 300, 3)
    head.fit(nano.features_int8(x), y, *((20,) if isinstance(settings, heads.SGD) else ()))
    x, y = blobs(3, 4000, 4)
    features = nano.features_int8(x)
    made, known = head.certainty(features), y < 3
    right = (head.predict(features) == y)[known].numpy()
    confidence = made.confidence[known].numpy()
    bins = (confidence * 9.99).astype(int)
    gaps = [abs((confidence - right)[bins == one].sum()) for one in range(10)]
    assert sum(gaps) / len(right) <= 0.05
    # Of 3,000 known samples 5 % are 150 +- 12, and that of 1,000 samples 0.7 points more or less.
    assert abs(float((~made.known[known]).float().mean()) - FALSE_ALARMS) <= 0.02
    assert float((~made.known[~known]).float().mean()) > 3 * FALSE_ALARMS


def test_an_added_class_is_known_once_it_is_taught() -> None:
    nano = rejecting(heads.LDA(capacity=4))
    head: Any = nano.head
    x, y = blobs(2, 400, 4)
    x[y == 3, 3] += 4
    features = nano.features_int8(x)
    head.fit(features[y < 3], y[y < 3])
    before = head.certainty(features[y == 3]).known.float().mean()
    head.add_class()
    head.fit(features[y == 3], y[y == 3])
    after = head.certainty(features[y == 3]).known.float().mean()
    assert after > 0.9 > before + 0.2


@pytest.mark.parametrize("settings", TRAINERS, ids=lambda one: type(one).__name__)
def test_devices_say_the_same(settings: heads.HeadSettings) -> None:
    """The emulated board, a simulated device and the head here: to the bit."""
    nano = rejecting(settings)
    epochs = {"epochs": 20} if isinstance(settings, heads.SGD) else {}
    taught, test = blobs(2, 60, 3), 2 * blobs(3, 24, 4)[0]
    head: Any = nano.head
    head.fit(nano.features_int8(taught[0]), taught[1], *epochs.values())
    made = head.certainty(nano.features_int8(test))
    assert 0 < int(made.known.sum()) < len(test)
    for connection in ("sim", tn.device.QemuBoard(nano.image)):
        with tn.Device(connection, nano=nano) as device:
            device.fit(*taught, **epochs)
            assert device.head_state() == head.state()
            for index, sample in enumerate(test):
                said = device.predict(sample)
                assert said.known == bool(made.known[index])
                assert said.confidence == float(made.confidence[index])
                assert said.margin == float(made.margin[index])
            # A threshold on the confidence rejects more.
            device.configure(rejection=1.0)
            assert not device.predict(test[int(made.confidence.argmin())]).known


def test_a_model_keeps_its_rejection_in_a_file(tmp_path: Any) -> None:
    nano = rejecting(heads.LDA())
    nano.save(tmp_path / "model.nanomodel")
    loaded = tn.load(tmp_path / "model.nanomodel")
    features = nano.features_int8(3 * blobs(3, 50, 4)[0])
    assert nano.head is not None and loaded.head is not None
    assert torch.equal(nano.head.certainty(features).known, loaded.head.certainty(features).known)
    assert loaded.image == nano.image


def rejected(match: str, error: type[Exception] = HeadError, **options: Any) -> None:
    x, y = blobs(0, 60, 3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    given = {"head": heads.LDA(), "rejection": heads.Rejection((x, y)), **options}
    with pytest.raises(error, match=match):
        tn.to_nano(model, x, calibrate=x, **given)


def test_wrong_data_and_settings_are_refused() -> None:
    x, y = blobs(0, 60, 3)
    rejected("rejection is 0.05; expected heads.Rejection", rejection=0.05)
    rejected("there is a rejection, but nothing of this model learns", head=None)
    rejected("outputs of this one do not exclude each other", head=heads.SGD(loss="binary"))
    rejected("class 2 has 0 samples in the rejection's data", rejection=heads.Rejection((x[y < 2], y[y < 2])))
    rejected("classes from 0 to 3; expected 0 to 2", rejection=heads.Rejection((x, y + (y == 2))))
    rejected("groups has shape", rejection=heads.Rejection((x, y), groups=[1, 2]))
    rejected("expected several groups", rejection=heads.Rejection((x, y), groups=[1] * 60))
    rejected("the rejection's data", InputError, rejection=heads.Rejection((x, y.float())))
    with pytest.raises(HeadError, match=r"taught is 1\.0; expected a part between 0 and 1"):
        heads.Rejection((x, y), taught=1)
    for wrong in (0, -1, 0.6, float("nan"), "a"):
        with pytest.raises(HeadError, match="false_alarms is"):
            heads.Rejection((x, y), false_alarms=wrong)  # type: ignore[arg-type]
    with pytest.raises(HeadError, match="epochs is 0"):
        heads.Rejection((x, y), epochs=0)
