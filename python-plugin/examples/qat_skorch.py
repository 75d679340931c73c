"""Quantization-aware training as a scikit-learn estimator: skorch around the module of `prepare_qat`.

A small network for scikit-learn's 8x8 digits is trained in float, then through the device's arithmetic:
cross-validated, fitted, and turned into an image that predicts the same.

    python python-plugin/examples/qat_skorch.py
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch_nano as tn
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import cross_val_score, train_test_split  # type: ignore[import-untyped]
from skorch import NeuralNetClassifier  # type: ignore[import-untyped]
from skorch.callbacks import Callback  # type: ignore[import-untyped]
from torch import nn
from training import reproducible

EPOCHS, FROZEN_FROM = 8, 6


@dataclass(frozen=True)
class Result:
    """Accuracies are fractions; `cross_validated` of the training images, the others of the test images."""

    cross_validated: list[float]
    accuracy: float
    nano_accuracy: float
    #: Test images that the estimator and the image label differently.
    different_predictions: int
    nano: tn.NanoModule


class FreezeRanges(Callback):  # type: ignore[misc]
    """Freezes the ranges at the start of an epoch, counted from 0."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_epoch_begin(self, net: NeuralNetClassifier, **_: object) -> None:
        """Called by skorch."""
        if len(net.history) - 1 == self.at:
            tn.qat.freeze_ranges(net.module_)


def network() -> nn.Module:
    """Convolution, batch norm, pool and a Linear."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 10),
    )


def estimator(qat: tn.qat.QatModule) -> NeuralNetClassifier:
    """The scikit-learn estimator; skorch adds the softmax for its probabilities."""
    return NeuralNetClassifier(
        qat,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-2,
        max_epochs=EPOCHS,
        batch_size=64,
        train_split=None,
        verbose=0,
        callbacks=[("freeze_ranges", FreezeRanges(FROZEN_FROM))],
    )


def digits() -> list[npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
    """Images [N, 1, 8, 8] to train on and to test on, and their labels."""
    x, y = load_digits(return_X_y=True)
    images = (x / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    parts: list[npt.NDArray[np.float32] | npt.NDArray[np.int64]] = train_test_split(
        images, y.astype(np.int64), test_size=0.3, random_state=0, stratify=y
    )
    return parts


def run(seed: int = 0) -> Result:
    """Runs the example."""
    x, x_test, y, y_test = digits()
    with reproducible(seed):
        example = torch.from_numpy(x)
        qat = tn.prepare_qat(
            network(), example[:2], calibrate=example[:200], batch_norm="batch_statistics", momentum=0.1
        )
        net = estimator(qat)
        scores = cross_val_score(net, x, y, cv=3)
        net.fit(x, y)
        predicted = net.predict(x_test)
    nano = tn.to_nano(net.module_)
    labels = nano(torch.from_numpy(x_test)).argmax(1).numpy()
    return Result(
        cross_validated=[float(score) for score in scores],
        accuracy=float((predicted == y_test).mean()),
        nano_accuracy=float((labels == y_test).mean()),
        different_predictions=int((predicted != labels).sum()),
        nano=nano,
    )


def main() -> None:
    """Runs the example and prints it."""
    result = run()
    print(f"cross-validated: {', '.join(f'{score:.1%}' for score in result.cross_validated)}")
    print(f"test images: {result.accuracy:.1%}, of the image: {result.nano_accuracy:.1%}")
    print(f"different predictions: {result.different_predictions}; flash: {result.nano.flash_bytes} bytes")


if __name__ == "__main__":
    main()
