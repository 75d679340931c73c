"""Heads that learn a person's arm: the watch demo's models, people and windows, without a board."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch_nano as tn
import watch
from learning_heads import (
    HALVE_EVERY,
    Accuracies,
    first_of_each,
    float_lda,
    heads_of,
    percent,
    real,
    recognised,
    score,
)
from learning_sets import Samples, ranged
from learning_shots import Shipped, User
from personal import DESCENT, EPOCHS_ON_BOARD
from torch import Tensor
from torch_nano.heads import SGD, SgdHead
from training import logistic_regression

LEARNERS = ("generic", "sgd", "logistic", "lda", "float_lda", "prototype")
ALL = "all"
SHOTS = (1, 2, 5)
"""Windows of each exercise; a person-arm has 4 to 12 of each to learn from."""
JUDGED = {
    "sgd": SGD("auto", halve_every=HALVE_EVERY),
    "guarded": SGD("auto", halve_every=HALVE_EVERY, guard=8),
}
"""Without and with the guard."""


@dataclass(frozen=True)
class Fold:
    """A model trained without some people, and the windows it was trained on."""

    windows: watch.Windows
    left_out: tuple[int, ...]
    #: All windows as the model's input.
    x: Tensor
    parts: watch.Split
    trained: watch.WatchNet
    model: tn.qat.QatModule

    @property
    def shipped(self) -> Shipped:
        """It with the windows of the people it was trained on, arm by arm."""
        part, windows = self.parts.train, self.windows
        arms = 2 * windows.subject[part] + windows.arm[part]
        return Shipped(self.model, self.trained.head, self.x[part], windows.exercise[part], arms)

    @property
    def users(self) -> list[User]:
        """The arms of the people left out."""
        exercise = torch.from_numpy(self.windows.exercise)
        return [
            User(self.x[own.train], exercise[own.train], self.x[own.test], exercise[own.test])
            for own in (watch.personal_split(self.windows, *one) for one in watch.person_arms(self.left_out))
        ]


def fold(windows: watch.Windows, left_out: tuple[int, ...], *, seed: int, epochs: int) -> Fold:
    """Trains without the people left out."""
    parts = watch.split(windows, left_out)
    x = watch.normalise(windows.x, watch.axis_range(windows.x[parts.train]))
    people = ", ".join(map(str, left_out))
    trained = watch.train(
        x[parts.train],
        windows.exercise[parts.train],
        seed=seed,
        epochs=epochs,
        description=f"watch, seed {seed}, training without {people}",
    )
    return Fold(windows, left_out, x, parts, trained, ranged(trained, x[parts.train]))


def person_arms(fold: Fold) -> list[dict[str, Accuracies]]:
    """What each of `LEARNERS` recognises of an arm's scored windows, in %, once it has learnt so many windows
    of each exercise (`SHOTS`, `ALL`): one result for each arm of the people left out."""
    unguarded = replace(DESCENT, guard=None)
    nano = tn.to_nano(fold.model, head=unguarded)
    heads = heads_of(fold.model, unguarded)
    results = []
    for own in fold.users:
        learnt, scored = (
            Samples(nano.features_int8(x), label)
            for x, label in ((own.x, own.label), (own.x_scored, own.label_scored))
        )
        heads.sgd.reset()
        generic = score(heads.sgd, scored)
        shots: dict[str, Accuracies] = {}
        for name, count in [*((str(count), count) for count in SHOTS), (ALL, len(own.label))]:
            user = learnt.of(first_of_each(learnt.label, np.arange(len(own.label)), count))
            data = [real(samples.features, nano.output_quantization) for samples in (user, scored)]
            floats = data[0], user.label.numpy(), data[1]
            found = recognised(heads, user, scored, EPOCHS_ON_BOARD)
            found["generic"] = generic
            found["logistic"] = percent(logistic_regression(*floats), scored.label)
            found["float_lda"] = percent(float_lda(*floats), scored.label)
            shots[name] = {one: found[one] for one in LEARNERS}
        results.append(shots)
    return results


def judged_arms(fold: Fold) -> list[Accuracies]:
    """What the generic head and those of `JUDGED` recognise of an arm's scored windows, in %, after all
    windows to learn from, in the order of the recordings, and the % of trainings that were taken back: one
    result for each arm of the people left out."""
    heads = {name: tn.to_nano(fold.model, head=settings) for name, settings in JUDGED.items()}
    results = []
    for own in fold.users:
        result: Accuracies = {}
        for name, nano in heads.items():
            head = nano.head
            assert isinstance(head, SgdHead)
            scored = Samples(nano.features_int8(own.x_scored), own.label_scored)
            head.reset()
            result["generic"] = score(head, scored)
            head.fit(nano.features_int8(own.x), own.label, EPOCHS_ON_BOARD)
            result[name] = score(head, scored)
            result["taken back"] = 100.0 if head.taken_back else 0.0
        results.append(result)
    return results
