"""Chooses the rate with which a head learns a user's first samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _native
from ..errors import HeadError
from ..heads import AutoRate
from ..heads.start import Factory
from .head_alone import head_alone
from .nano_module import NanoModule
from .taught_samples import taught_samples

#: Logarithms (base 2) of rates, relative to the one that is used where samples agree fairly.
_TRIED = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
_MOST_GROUPS, _DRAWS = 8, 8
_Bools = npt.NDArray[np.bool_]


def with_rate(description: dict[str, Any], rate: AutoRate, nano: NanoModule) -> dict[str, Any]:
    """The description of an SgdHead with its rate for a user's first samples.

    Args:
        description: of the head without it.
        nano: the model with that head.

    Raises:
        HeadError: a loss without classes; wrong classes or groups, or too few samples.
        InputError: data of the wrong kind.
    """
    if description["loss"] != "cross_entropy":
        raise HeadError(
            f'heads.AutoRate is for loss "cross_entropy", and the loss is {description["loss"]!r}: give a '
            'number, or "auto"'
        )
    samples = taught_samples("the rate's data", rate.data, rate.groups, nano, len(description["biases"]))
    width, quantization = samples.features.shape[1], nano.output_quantization
    heads = [head_alone({**description, "prior": tried}, width, quantization) for tried in _TRIED]
    scores = [_scores(heads, samples, *draw, rate.epochs) for draw in _draws(samples)]
    if not scores:
        raise HeadError(
            f"the rate's {len(samples.classes)} samples have no 4 of one class"
            f"{'' if samples.groups is None else ' and group'}; expected 4 or more of each"
        )
    # The lowest of equal ones.
    best = int(np.mean(scores, axis=0).round(6).argmax())
    return {**description, "prior": _TRIED[best]}


def _draws(samples: Factory) -> Iterator[tuple[_Bools, _Bools]]:
    """Samples to learn, one of each class from the first half of a group's, and those of its second half."""
    groups = np.zeros(len(samples.classes), np.int64) if samples.groups is None else samples.groups
    last = int(groups.max())
    for group in np.unique(np.linspace(0, last, min(last + 1, _MOST_GROUPS)).round().astype(int)):
        own = groups == group
        y = np.where(own, samples.classes, -1)
        rank = np.array([int((y[:index] == label).sum()) for index, label in enumerate(y)])
        half = np.bincount(y + 1)[y + 1] // 2
        for draw in range(_DRAWS):
            learnt = own & (rank == draw) & (draw < half)
            if not (own & (half >= 2) & learnt).any():
                break
            yield learnt, own & (rank >= half)


def _scores(
    heads: list[_native.Head], samples: Factory, learnt: _Bools, scored: _Bools, epochs: int
) -> list[float]:
    """The accuracy of each head on some samples, once it has learnt others."""
    x, y = samples.features, samples.classes
    accuracies = []
    for head in heads:
        head.reset()
        head.train(np.ascontiguousarray(x[learnt]), y[learnt], epochs)
        found = head.logits(np.ascontiguousarray(x[scored])).argmax(1)
        accuracies.append(float(np.mean(found == y[scored])))
    return accuracies
