"""The classifier with scikit-learn's conventions."""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch_nano as tn
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn
from torch_nano.integrations.sklearn import NanoClassifier

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def checks() -> Iterator[Any]:
    """The checks of scikit-learn that apply: all but one for estimators that take arrays of other libraries,
    which is optional, and which scikit-learn runs only where SCIPY_ARRAY_API is set.
    """
    for estimator, check in estimator_checks_generator(NanoClassifier(epochs=25, random_state=0)):
        name = check.func.__name__
        if name != "check_array_api_input":
            yield pytest.param(estimator, check, id=name)


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_it_passes_the_checks_of_scikit_learn(estimator: NanoClassifier, check: Any) -> None:
    check(estimator)


def test_it_predicts_what_the_image_does() -> None:
    classifier = NanoClassifier(random_state=0).fit(X, NAMES[Y])
    assert classifier.score(X, NAMES[Y]) > 0.92 and classifier.classes_.tolist() == NAMES.tolist()
    integers = classifier.nano_(X.astype(np.float32)).argmax(1).numpy()
    assert np.array_equal(classifier.predict(X), NAMES[integers])
    assert classifier.nano_.verify("host", X.astype(np.float32))
    made = classifier.evaluate(X, NAMES[Y])
    assert made.accuracy == classifier.score(X, NAMES[Y]) and made.float_accuracy > 0.92
    with pytest.raises(ValueError, match=r"labels \['tulip'\], which fit did not see"):
        classifier.evaluate(X[:2], ["tulip", "setosa"])


def test_it_takes_a_module_of_ones_own_in_pipelines_and_searches() -> None:
    def deep(features: int, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, classes)
        )

    pipeline = make_pipeline(StandardScaler(), NanoClassifier(deep, random_state=0, head=tn.heads.LDA()))
    assert cross_val_score(pipeline, X, Y, cv=3).min() > 0.85
    search = GridSearchCV(NanoClassifier(random_state=0), {"epochs": [1, 40]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"epochs": 40}


def test_clones_and_pickles_are_the_same() -> None:
    classifier = NanoClassifier(random_state=0, epochs=5)
    first, second = clone(classifier).fit(X, Y), clone(classifier).fit(X, Y)
    assert first.nano_.image == second.nano_.image
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict_proba(X), first.predict_proba(X))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="y has 1 class"):
        NanoClassifier().fit(X[:50], Y[:50])
