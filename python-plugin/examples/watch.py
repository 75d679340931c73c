"""Watch-IMU recordings, the people left out, and a small 1-D CNN that tells seven exercises apart.

Real recordings, as seglearn 1.2.5 ships them (Burns et al. 2018, https://arxiv.org/abs/1802.01489):
10 people, both arms, 7 shoulder exercises, one recording each, accelerometer and gyroscope at 50 Hz.

>>> windows = load_windows()
>>> windows.x.shape, windows.x.dtype
((4677, 6, 100), dtype('float32'))
>>> fold = split(windows, left_out=FOLDS[0])
>>> fold.train.size, fold.test.size
(3193, 1484)
>>> x = normalise(windows.x, axis_range(windows.x[fold.train]))
>>> WatchNet().eval()(x[:2]).shape
torch.Size([2, 7])
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn
from training import IntArray, reproducible

EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""Pendulum, abduction, forward elevation, internal and external rotation, trapezius extension, row."""
AXES = ("ax", "ay", "az", "wx", "wy", "wz")
"""Acceleration in g, then angular rate in rad/s, as recorded."""
WINDOW, HOP = 100, 50
"""Samples per window and between the starts of two windows: 2 s and 1 s at 50 Hz."""
FOLDS = ((8, 9, 10), (1, 2, 3))
"""The people left out of training, one tuple per fold."""
FEATURES = 64
"""Number of features between backbone and head."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """N windows, in time order within each recording; every field but `x` is int64 of shape [N].

    `x` float32 [N, 6, 100] in sensor units (see `AXES`); `exercise` 0..6 (index into `EXERCISES`);
    `subject` 1..10; `arm` 0 left, 1 right; `series` the recording 0..139; `position` in that recording.
    """

    x: FloatArray
    exercise: IntArray
    subject: IntArray
    arm: IntArray
    series: IntArray
    position: IntArray


@dataclass(frozen=True)
class Split:
    """Indices into a `Windows`, for training and for scoring. The two never share a sample."""

    train: IntArray
    test: IntArray


def dataset_path() -> Path:
    """The path of seglearn's recordings. seglearn is not imported, as its dependencies may be missing.

    Raises:
        FileNotFoundError: seglearn, or the data file in it, is not installed.
    """
    spec = importlib.util.find_spec("seglearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "watch_dataset.npy"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "the watch recordings, seglearn/data/watch_dataset.npy, are not installed: "
        "pip install --no-deps seglearn==1.2.5"
    )


def load_windows() -> Windows:
    """Loads all 4,677 windows of the 140 recordings; raises as `dataset_path` if they are not installed."""
    # The file is a pickled dict; it comes from a package that the user chose to install.
    data = np.load(dataset_path(), allow_pickle=True).item()
    cuts = [np.lib.stride_tricks.sliding_window_view(series, WINDOW, axis=0)[::HOP] for series in data["X"]]
    lengths = [len(cut) for cut in cuts]

    def per_window(per_series: npt.ArrayLike) -> IntArray:
        return np.repeat(np.asarray(per_series, dtype=np.int64), lengths)

    return Windows(
        x=np.concatenate(cuts).astype(np.float32),
        exercise=per_window(data["y"]),
        subject=per_window(data["subject"]),
        arm=per_window(data["side"]),
        series=per_window(np.arange(len(cuts))),
        position=np.concatenate([np.arange(n) for n in lengths]),
    )


def split(windows: Windows, left_out: tuple[int, ...]) -> Split:
    """Train on everybody else, test on the people in `left_out`."""
    out = np.isin(windows.subject, left_out)
    return Split(train=np.flatnonzero(~out), test=np.flatnonzero(out))


def person_arms(left_out: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Every (subject, arm) of the people left out.

    >>> list(person_arms((8, 9)))
    [(8, 0), (8, 1), (9, 0), (9, 1)]
    """
    return ((subject, arm) for subject in left_out for arm in (0, 1))


def personal_split(windows: Windows, subject: int, arm: int) -> Split:
    """Splits one arm's windows: of each recording the first 25 % for training, those after 30 % for scoring.

    Per recording, because each has one exercise only. `train` is in the order of the recordings: one exercise
    after the other. The gap separates overlapping windows (hop 50 of 100).
    """
    train, test = [], []
    for series in np.unique(windows.series[(windows.subject == subject) & (windows.arm == arm)]):
        own = np.flatnonzero(windows.series == series)
        train.append(own[: len(own) * 25 // 100])
        test.append(own[-(-len(own) * 30 // 100) :])
    return Split(train=np.concatenate(train), test=np.concatenate(test))


def axis_range(x: FloatArray) -> FloatArray:
    """Full-scale range of each axis: float32 [6], the 99.9th percentile of |x| of windows [N, 6, 100].

    Compute it from the training people only. A percentile, as rare peaks would cost resolution everywhere.
    """
    return np.percentile(np.abs(x), 99.9, axis=(0, 2)).astype(np.float32)


def normalise(x: FloatArray, ranges: FloatArray) -> Tensor:
    """The model's input: windows [N, 6, 100] in units of each axis's range [6], saturated to [-1, 1].

    No mean is subtracted, so one constant per axis converts a sensor reading to the int8 input.

    >>> normalise(np.full((1, 6, 100), 3.0, np.float32), np.array([2, 3, 4, 6, 12, 24], np.float32))[0, :, 0]
    tensor([1.0000, 1.0000, 0.7500, 0.5000, 0.2500, 0.1250])
    """
    return torch.from_numpy(np.clip(x / ranges[:, None], -1, 1))


def conv_block(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv1d (kernel 5, same length), batch norm, ReLU."""
    return [nn.Conv1d(inputs, outputs, 5, padding=2), nn.BatchNorm1d(outputs), nn.ReLU()]


class WatchNet(nn.Module):
    """`features`: normalised windows [N, 6, 100] -> [N, 64], never negative; `head`: -> logits [N, 7]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *conv_block(len(AXES), 16),
            nn.MaxPool1d(4),
            *conv_block(16, 32),
            nn.MaxPool1d(2),
            *conv_block(32, FEATURES),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(FEATURES, len(EXERCISES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 7] of normalised windows [N, 6, 100]."""
        logits: Tensor = self.head(self.features(x))
        return logits


def train(
    x: Tensor,
    exercise: IntArray,
    *,
    seed: int,
    epochs: int = 20,
    batch_size: int = 64,
    description: str = "training",
) -> WatchNet:
    """A `WatchNet` trained on normalised windows [N, 6, 100] and their exercises [N], in evaluation mode.

    Shows a progress bar titled `description`. The model depends on the seed only, not on the number of
    threads; torch's own generator is not changed.
    """
    labels = torch.from_numpy(exercise)
    with reproducible(seed):
        model = WatchNet().train()
        batches = len(x) // batch_size
        optimizer = torch.optim.AdamW(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * batches)
        for _ in track(range(epochs), description=description):
            for batch in torch.randperm(len(x))[: batches * batch_size].view(batches, batch_size):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return model.eval()
