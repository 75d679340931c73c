"""Shared by the examples: reproducible float training, and its reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

IntArray = npt.NDArray[np.int64]


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seeds torch's random numbers and lets it use one thread inside; restores both at the end.

    One thread: sums have the same order everywhere, and layers this small gain nothing from a second one.

    >>> with reproducible(3):
    ...     first = torch.rand(2)
    >>> with reproducible(3):
    ...     torch.equal(first, torch.rand(2))
    True
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def accuracy(predicted: npt.ArrayLike, expected: IntArray) -> float:
    """The fraction of predicted classes that are right.

    >>> accuracy([1, 2, 3, 4], np.array([1, 2, 3, 0]))
    0.75
    """
    return float(np.mean(np.asarray(predicted) == expected))


def logistic_regression(
    features: npt.NDArray[np.float32], labels: IntArray, scored: npt.NDArray[np.float32]
) -> IntArray:
    """The float reference of a head: fits `features` [N, F], predicts the classes of `scored` [M, F]."""
    # One thread: with matrices this small, more threads are slower.
    with threadpool_limits(1):
        fitted = LogisticRegression(max_iter=2000).fit(features, labels)
    return np.asarray(fitted.predict(scored), dtype=np.int64)
