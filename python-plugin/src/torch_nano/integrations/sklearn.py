"""A classifier with scikit-learn's conventions (the package `scikit-learn`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
from sklearn.utils import check_random_state  # type: ignore[import-untyped]
from sklearn.utils.multiclass import check_classification_targets  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted, validate_data  # type: ignore[import-untyped]
from torch import nn

from ..compile.nano_module import NanoModule
from ..compile.to_nano import to_nano
from ..evaluation.evaluation import Evaluation
from ..heads import HeadSettings, LdaHead, PrototypeHead
from ..training.fit import fit

#: From the numbers of features and classes to a module of [N, features] -> [N, classes].
MakeModule = Callable[[int, int], nn.Module]
#: Units of the hidden layer of the default module.
_HIDDEN = 32


class NanoClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a small network, and predicts with the int8 image that is made of it: for pipelines, grid
    searches and cross-validation with the device's own predictions.

    After :meth:`fit` it has `model_`, the float module; `nano_`, the :class:`torch_nano.NanoModule`, to
    verify, profile and export; `classes_`, the labels; `history_`, the training's.

    Args:
        module: makes the network, from the numbers of features and classes; None: one hidden layer of 32
            units, after a normalization of the features.
        epochs: passes over the samples.
        learning_rate: of AdamW.
        batch_size: samples of a step.
        head: what learns on the device: settings (:mod:`torch_nano.heads`), or None: nothing. An LDA or
            Prototype head begins with these samples.
        random_state: for weights and shuffling; None: another run is another result.

    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from torch_nano.integrations.sklearn import NanoClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = NanoClassifier(epochs=40, random_state=0).fit(x, y)
    >>> classifier.score(x, y) > 0.9, classifier.nano_.flash_bytes < 2000
    (True, True)
    """

    def __init__(
        self,
        module: MakeModule | None = None,
        *,
        epochs: int = 30,
        learning_rate: float = 0.01,
        batch_size: int = 32,
        head: HeadSettings | None = None,
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.head = head
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Trains a new network, and converts it.

        Args:
            X: numbers [N, features].
            y: labels [N], of two classes or more.

        Raises:
            ValueError: wrong numbers or labels, as scikit-learn says; or fewer than two classes or samples.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has {len(self.classes_)} class, {self.classes_[0]!r}; expected two or more")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        x, targets = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(indices.astype(np.int64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make = self.module
            self.model_ = (
                _default_module(x, len(self.classes_))
                if make is None
                else make(x.shape[1], len(self.classes_))
            )
        self.history_ = fit(
            self.model_,
            (x, targets),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            seed=seed,
            progress=False,
        )
        self.model_.eval()
        self.nano_: NanoModule = to_nano(
            self.model_, calibrate=x, head=self.head, name=type(self).__name__, check=False
        )
        if isinstance(self.nano_.head, LdaHead | PrototypeHead):
            # Made without samples, it knows nothing of the layer that was trained.
            self.nano_.head.fit(self.nano_.features_int8(x), targets)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """The image's scores: [N, classes]; of two classes the second minus the first, [N].

        Raises:
            NotFittedError: before :meth:`fit`.
            ValueError: wrong numbers.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """The softmax of the image's scores, [N, classes].

        Raises:
            NotFittedError, ValueError: as :meth:`decision_function`.
        """
        probabilities: NDArray[np.float32] = torch.softmax(torch.from_numpy(self._scores(X)), 1).numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The labels that the device predicts, [N].

        Raises:
            NotFittedError, ValueError: as :meth:`decision_function`.
        """
        largest = self._scores(X).argmax(1)
        predicted: NDArray[Any] = self.classes_[largest]
        return predicted

    def evaluate(self, X: ArrayLike, y: ArrayLike) -> Evaluation:
        """:meth:`torch_nano.NanoModule.evaluate`, beside the float module.

        Raises:
            NotFittedError, ValueError: as :meth:`decision_function`; or a label that :meth:`fit` did not see.
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, dtype=np.float32, reset=False)
        unknown = set(np.unique(y).tolist()) - set(self.classes_.tolist())
        if unknown:
            raise ValueError(f"y has the labels {sorted(unknown)}, which fit did not see")
        indices = np.searchsorted(self.classes_, y)
        return self.nano_.evaluate((np.ascontiguousarray(X), indices), self.model_)

    def _scores(self, X: ArrayLike) -> NDArray[np.float32]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        scores: NDArray[np.float32] = self.nano_(np.ascontiguousarray(X)).numpy()
        return scores


class _Normalize(nn.Module):
    """Subtracts the mean of each feature, and divides by its standard deviation."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        deviation, mean = torch.std_mean(x.double(), 0, correction=0)
        # A constant feature says nothing: it stays as it is, around 0.
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", mean.float())
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, 1).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = (x - self.mean) / self.deviation
        return normalized


def _default_module(x: torch.Tensor, classes: int) -> nn.Module:
    return nn.Sequential(
        _Normalize(x), nn.Linear(x.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, classes)
    )
