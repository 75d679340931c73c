"""The watch example's data, splits and training."""

import doctest

import numpy as np
import pytest
import torch
import watch


@pytest.fixture(scope="module")
def windows() -> watch.Windows:
    return watch.load_windows()


def test_the_docstrings_hold() -> None:
    assert doctest.testmod(watch).failed == 0


def test_windows_are_the_recordings(windows: watch.Windows) -> None:
    assert windows.x.shape == (4677, 6, 100) and np.isfinite(windows.x).all()
    recordings = np.unique(np.stack([windows.subject, windows.arm, windows.exercise, windows.series]), axis=1)
    assert recordings.shape == (4, 140)  # 10 people x 2 arms x 7 exercises, each recorded once
    raw = np.load(watch.dataset_path(), allow_pickle=True).item()
    for index in range(0, len(windows.x), 97):
        start = windows.position[index] * watch.HOP
        samples = raw["X"][windows.series[index]][start : start + watch.WINDOW]
        assert np.array_equal(windows.x[index].T, samples.astype(np.float32))
    assert tuple(raw["y_labels"]) == watch.EXERCISES and tuple(raw["X_labels"]) == watch.AXES


def test_people_left_out_are_not_trained_on(windows: watch.Windows) -> None:
    for left_out in watch.FOLDS:
        fold = watch.split(windows, left_out)
        assert set(windows.subject[fold.test]) == set(left_out)
        assert not set(windows.subject[fold.train]) & set(left_out)
        assert sorted([*fold.train, *fold.test]) == list(range(4677))


def test_personal_parts_share_no_sample(windows: watch.Windows) -> None:
    for subject, arm in [pair for left_out in watch.FOLDS for pair in watch.person_arms(left_out)]:
        part = watch.personal_split(windows, subject, arm)
        for indices in (part.train, part.test):
            assert set(windows.subject[indices]) == {subject} and set(windows.arm[indices]) == {arm}
            assert set(windows.exercise[indices]) == set(range(7))
        for series in np.unique(windows.series[part.train]):
            count = (windows.series == series).sum()
            learnt = windows.position[part.train[windows.series[part.train] == series]]
            scored = windows.position[part.test[windows.series[part.test] == series]]
            assert learnt.max() * watch.HOP + watch.WINDOW <= scored.min() * watch.HOP
            assert (learnt.max() + 1) / count <= 0.25 and scored.min() / count >= 0.30


def test_normalised_windows_use_the_full_range(windows: watch.Windows) -> None:
    ranges = watch.axis_range(windows.x)
    x = watch.normalise(windows.x, ranges).numpy()
    assert x.dtype == np.float32 and x.min() == -1 and x.max() == 1
    saturated = np.abs(x) == 1
    assert (saturated.mean(axis=(0, 2)) < 0.0011).all()  # 99.9th percentile
    assert np.array_equal(x[~saturated], (windows.x / ranges[:, None])[~saturated])


def test_one_seed_gives_one_model(windows: watch.Windows) -> None:
    x, exercise = watch.normalise(windows.x[::9], watch.axis_range(windows.x)), windows.exercise[::9]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, again, other = (watch.train(x, exercise, seed=seed, epochs=1) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


def test_missing_recordings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps seglearn==1\.2\.5"):
        watch.load_windows()
