"""Chooses what a head's predictions mean: lets it learn some of the samples, and predict the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import _native
from ..errors import HeadError
from ..heads import LdaHead, PrototypeHead, Rejection, SgdHead
from ..heads.start import Factory
from .nano_module import NanoModule
from .taught_samples import taught_samples

_Learner = SgdHead | LdaHead | PrototypeHead
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
#: In 1/TEMPERATURE_STEPS of a power of two: from 2^-16 to 2^16.
_TRIED = np.arange(-16 * _native.TEMPERATURE_STEPS, 16 * _native.TEMPERATURE_STEPS + 1)
#: A float in place of the logit of a class without samples.
_NO_LOGIT = -1e30
#: Steps of the search for the rate of false alarms at which limits are taken from the other groups.
_RATES = 100


@dataclass(frozen=True)
class _Predicted:
    """What a head that has learnt some samples makes of others."""

    #: Real logits [N, classes].
    logits: Floats
    right: Bools
    #: Squared distances to the nearest class mean.
    distance: Floats
    group: npt.NDArray[np.int64]


def with_rejection(description: dict[str, Any], rejection: Rejection, nano: NanoModule) -> dict[str, Any]:
    """The description of a head with what its predictions mean.

    Args:
        description: of the head without it.
        nano: the model with that head.

    Raises:
        HeadError: the head's outputs are no classes that exclude each other; wrong classes or groups; or too
            few samples.
        InputError: data of the wrong kind.
    """
    head = nano.head
    assert isinstance(head, SgdHead | LdaHead | PrototypeHead)
    if head.target != "class":
        raise HeadError(
            "rejection= is for heads of one right class: the outputs of this one do not exclude each other"
        )
    samples = taught_samples("the rejection's data", rejection.data, rejection.groups, nano, head.classes)
    count = np.bincount(samples.classes, minlength=head.classes)
    if count.min() < 2:
        raise HeadError(
            f"class {int(count.argmin())} has {int(count.min())} samples in the rejection's data; expected "
            "at least 2 of each class, and about 100 in all for a rate of 5 %"
        )
    variance = _variance(samples)
    predicted = _joined(list(_predictions(head, samples, variance, rejection)))
    head.reset()
    limit = _limit(predicted, rejection.false_alarms)
    if isinstance(head, SgdHead):
        # The device compares with the means in the image as they are.
        limit += float((variance / count).mean())
    centres = np.rint(_means(samples.features, samples.classes, head.classes)).astype(np.int8)
    most = np.iinfo(np.uint32).max
    return {
        **description,
        "rejection": {
            "temperature": _temperature(predicted),
            "centres": centres,
            "variance": int(min(variance, most)),
            "limit": int(min(limit, most)),
        },
    }


def _variance(samples: Factory) -> float:
    """The variance within a class of a group, summed over the features."""
    cells = samples.classes
    if samples.groups is not None:
        cells = cells * (int(samples.groups.max()) + 1) + samples.groups
    _, cell = np.unique(cells, return_inverse=True)
    means = _means(samples.features, cell, int(cell.max()) + 1)
    squares = ((samples.features.astype(np.float64) - means[cell]) ** 2).sum()
    return float(squares / max(len(cell) - len(means), 1))


def _predictions(
    head: _Learner, samples: Factory, variance: float, rejection: Rejection
) -> Iterator[_Predicted]:
    """Some samples of each class predict the others; of each group, if they are known."""
    y, groups = samples.classes, samples.groups
    if groups is None:
        order = np.random.default_rng(0).permutation(len(y))
        first = np.empty(len(y), np.bool_)
        first[order] = _first(y[order], 0.5)
        for learnt in (first, ~first):
            yield _predicted(head, samples, learnt, ~learnt, learnt, variance, rejection.epochs)
        return
    for group in range(int(groups.max()) + 1):
        own = np.flatnonzero(groups == group)
        learnt, scored = np.zeros(len(y), np.bool_), np.zeros(len(y), np.bool_)
        first = _first(y[own], rejection.taught)
        learnt[own[first]], scored[own[~first]] = True, True
        central = groups != group if isinstance(head, SgdHead) else learnt
        if scored.any():
            yield _predicted(head, samples, learnt, scored, central, variance, rejection.epochs)


def _first(classes: npt.NDArray[np.int64], part: float) -> Bools:
    """The first part of each class's samples, rounded up.

    >>> _first(np.array([0, 0, 1, 0, 1]), 0.5).tolist()
    [True, True, True, False, False]
    """
    first = np.zeros(len(classes), np.bool_)
    for one in np.unique(classes):
        own = np.flatnonzero(classes == one)
        first[own[: math.ceil(part * len(own))]] = True
    return first


def _predicted(
    head: _Learner,
    samples: Factory,
    learnt: Bools,
    scored: Bools,
    central: Bools,
    variance: float,
    epochs: int,
) -> _Predicted:
    """What a head that has learnt some samples makes of others.

    Args:
        learnt: the samples that it learns; scored: those that it predicts.
        central: those of the class means that it has: its own samples, or the image's.
        variance: within a class.
    """
    x, y = samples.features, samples.classes
    own, wanted = torch.from_numpy(x[learnt]), torch.from_numpy(y[learnt])
    head.reset()
    if isinstance(head, SgdHead):
        head.fit(own, wanted, epochs)
    else:
        head.fit(own, wanted)
    left = torch.from_numpy(x[scored])
    integers = head.logits(left).numpy()
    logits = np.where(integers == np.iinfo(np.int32).min, _NO_LOGIT, head(left).numpy().astype(np.float64))
    means, count = (
        _means(x[central], y[central], head.classes),
        np.bincount(y[central], minlength=head.classes),
    )
    own_deviation = variance / np.maximum(count, 1)
    squares = [((sample - means) ** 2).sum(1) - own_deviation for sample in x[scored].astype(np.float64)]
    distance = np.maximum(np.array([square.min() for square in squares]), 0)
    group = np.zeros(len(left), np.int64) if samples.groups is None else samples.groups[scored]
    return _Predicted(logits, integers.argmax(1) == y[scored], distance, group)


def _joined(parts: list[_Predicted]) -> _Predicted:
    fields = ("logits", "right", "distance", "group")
    return _Predicted(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _means(x: npt.NDArray[np.int8], y: npt.NDArray[np.int64], classes: int) -> Floats:
    """The class means [classes, features]; far from everything for a class without samples."""
    means = np.full((classes, x.shape[1]), 1e6)
    for one in np.unique(y):
        means[one] = x[y == one].astype(np.float64).mean(0)
    return means


def _temperature(predicted: _Predicted) -> int:
    """The temperature with the least cross-entropy between confidences and right predictions.

    The targets are those of Platt (Probabilistic outputs for support vector machines, 1999), so that samples
    that are all predicted right still have a best temperature.
    """
    right = predicted.right
    sure, unsure = (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)
    target = np.where(right, sure, unsure)
    ahead = predicted.logits - predicted.logits.max(1, keepdims=True)
    losses = []
    for temperature in _TRIED:
        powers = np.exp(np.maximum(ahead / 2 ** (temperature / _native.TEMPERATURE_STEPS), -700))
        confidence = np.clip(1 / powers.sum(1), 1e-9, 1 - 1e-9)
        losses.append(-(target * np.log(confidence) + (1 - target) * np.log(1 - confidence)).mean())
    return int(_TRIED[int(np.argmin(losses))])


def _limit(predicted: _Predicted, false_alarms: float) -> float:
    """The largest squared distance that is accepted, for the wanted rate of false alarms.

    With groups, limits of the other groups alone are tried first: people differ more than one person's
    samples, so a limit has to be wider than the samples' own rate says.
    """
    rate, groups = false_alarms, np.unique(predicted.group)
    if len(groups) > 1:
        rates = np.arange(1, 2 * _RATES + 1) * false_alarms / _RATES
        alarms = np.zeros(len(rates))
        for group in groups:
            own = predicted.group == group
            limits = _quantiles(predicted.distance[~own], rates)
            alarms += (predicted.distance[own][:, None] > limits).sum(0)
        # It falls with the rate: the first one that is close enough is the most careful.
        rate = float(rates[int(np.abs(alarms / len(predicted.distance) - false_alarms).argmin())])
    return float(_quantiles(predicted.distance, np.array([rate]))[0])


def _quantiles(distance: Floats, rates: Floats) -> Floats:
    """The distances that a new sample exceeds with these probabilities, at most (Vovk et al., Algorithmic
    Learning in a Random World, 2005)."""
    place = np.ceil((len(distance) + 1) * (1 - rates)).astype(np.int64)
    return np.sort(distance)[np.clip(place, 1, len(distance)) - 1]
