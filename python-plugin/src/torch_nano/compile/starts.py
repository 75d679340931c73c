"""Describes the start of a head for nano-core's writer: runs the factory's samples, and chooses strengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _native
from ..arithmetic.quantization import Quantization
from ..heads import Start
from ..heads.start import Factory, Layer
from .head_alone import head_alone
from .nano_module import NanoModule
from .taught_samples import taught_samples

#: Strengths where groups are unknown. Measured on shifts between factory and user (digits of another kind,
#: other noise, other people's arms): no accuracy at 1 to 10 samples of each class, or all, is more than 0.2
#: points below that from the user's samples alone, and most are above it.
MEANS, SPREAD = 0.5, 2.0
#: Those that are tried where groups are known. The backbone knows a group that is left out, which speaks for
#: strong means: 1.0 was always chosen for the watch, and gave a PrototypeHead 0.54 points less than no start
#: with 5 samples of each class; 0.5 gives it 0.24 less.
_TRIED_MEANS, _TRIED_SPREADS = (0.125, 0.25, 0.5), (1.0, 2.0, 4.0)
_SHOTS, _MOST_GROUPS = (1, 2, 5, 10), 8


def with_start(description: dict[str, Any], start: Start, layer: Layer, nano: NanoModule) -> dict[str, Any]:
    """The description of a head with its start.

    Args:
        description: of the head without one.
        layer: the one that is shipped.
        nano: the model with that head.

    Raises:
        HeadError: wrong classes or groups, or a strength that nano-core refuses.
        InputError: data of the wrong kind.
    """
    quantization = nano.output_quantization
    factory = taught_samples("the start's data", start.data, start.groups, nano, len(layer.biases))
    means, spread = start.means, start.spread
    if factory.groups is not None and (means is None or spread is None):
        means, spread = _chosen(_Trial(description, layer, quantization), factory, means, spread)
    means, spread = MEANS if means is None else means, SPREAD if spread is None else spread
    return {**description, "start": factory.description(layer, quantization.zero_point, means, spread)}


@dataclass(frozen=True)
class _Trial:
    """A head to be tried with other starts."""

    description: dict[str, Any]
    layer: Layer
    quantization: Quantization

    def head(self, factory: Factory, means: float, spread: float) -> _native.Head:
        """It, started from these samples with these strengths."""
        start = factory.description(self.layer, self.quantization.zero_point, means, spread)
        description = {**self.description, "start": start}
        return head_alone(description, factory.features.shape[1], self.quantization)


def _chosen(
    trial: _Trial, factory: Factory, means: float | None, spread: float | None
) -> tuple[float, float]:
    """The strengths of the best mean accuracy on groups that are left out, the weakest of equal ones."""
    candidates = list(
        itertools.product(
            _TRIED_MEANS if means is None else (means,), _TRIED_SPREADS if spread is None else (spread,)
        )
    )
    scores = [row for group in _left_out(factory) for row in _scores(trial, factory, group, candidates)]
    if not scores:
        return MEANS if means is None else means, SPREAD if spread is None else spread
    best = np.mean(scores, axis=0).round(6)
    return candidates[int(best.argmax())]


def _left_out(factory: Factory) -> Iterator[int]:
    """Groups, evenly chosen, without which the others still have two samples of each class."""
    assert factory.groups is not None
    count = int(factory.groups.max()) + 1
    classes = int(factory.classes.max()) + 1
    for group in np.unique(np.linspace(0, count - 1, min(count, _MOST_GROUPS)).round().astype(int)):
        rest = factory.without(int(group))
        if len(rest.classes) and (np.bincount(rest.classes, minlength=classes) >= 2).all():
            yield int(group)


def _scores(
    trial: _Trial, factory: Factory, group: int, candidates: list[tuple[float, float]]
) -> Iterator[list[float]]:
    """For each number of samples of each class that a group left out has, the accuracy of each candidate."""
    assert factory.groups is not None
    rest = factory.without(group)
    heads = [trial.head(rest, means, spread) for means, spread in candidates]
    own = factory.groups == group
    x, y = factory.features[own], factory.classes[own]
    rank = np.array([int((y[:index] == label).sum()) for index, label in enumerate(y)])
    half = np.bincount(y)[y] // 2
    for shots in _SHOTS:
        learnt, scored = rank < np.minimum(shots, half), rank >= half
        if not learnt.any() or not (half >= shots).any():
            continue
        accuracies = []
        for head in heads:
            head.reset()
            head.learn_all(np.ascontiguousarray(x[learnt]), y[learnt])
            head.commit()
            found = head.logits(np.ascontiguousarray(x[scored])).argmax(1)
            accuracies.append(float(np.mean(found == y[scored])))
        yield accuracies
