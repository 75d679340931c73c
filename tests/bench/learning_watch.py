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
    float_sgd,
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
from torch_nano.heads import LDA, SGD, HeadSettings, LdaHead, Prototype, PrototypeHead, SgdHead
from training import logistic_regression

LEARNERS = ("generic", "sgd", "float_sgd", "logistic", "lda", "float_lda", "prototype")
ALL = "all"
SHOTS = (1, 2, 5)
"""Windows of each exercise; a person-arm has 4 to 12 of each to learn from."""
DESCENT_PLAIN = replace(DESCENT, guard=None)
JUDGED = {
    "sgd": SGD("auto", halve_every=HALVE_EVERY),
    "guarded": SGD("auto", halve_every=HALVE_EVERY, guard=8),
}
"""Without and with the guard."""
FADING: dict[str, tuple[HeadSettings, HeadSettings]] = {
    "lda": (LDA(), LDA(half_life=3)),
    "prototype": (Prototype(), Prototype(half_life=2)),
    "sgd": (DESCENT_PLAIN, replace(DESCENT_PLAIN, half_life=20)),
}
"""Without and with a half-life."""
NEW_WINDOWS = 40
"""Of the new wearer, learnt before the head is scored."""


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
        arms = [
            (person, watch.personal_split(self.windows, person, arm))
            for person, arm in watch.person_arms(self.left_out)
        ]
        return [
            User(self.x[own.train], exercise[own.train], self.x[own.test], exercise[own.test], person)
            for person, own in arms
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
    nano = tn.to_nano(fold.model, head=DESCENT_PLAIN)
    heads = heads_of(fold.model, DESCENT_PLAIN)
    layer = fold.trained.head
    shipped = np.hstack(
        [part.detach().numpy().reshape(layer.out_features, -1) for part in (layer.weight, layer.bias)]
    )
    rate = DESCENT_PLAIN.learning_rate
    assert isinstance(rate, float)
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
            found["float_sgd"] = percent(float_sgd(*floats, rate, shipped), scored.label)
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


def changed_wearers(fold: Fold) -> list[Accuracies]:
    """A stream that changes its wearer: a head that has learnt all windows of one arm learns `NEW_WINDOWS` of
    another person's. What it recognises of that arm's scored windows, in %, with a half-life and without one
    (`lda, kept`), and a new head without one that learns only the new windows (`lda, fresh`): one result for
    each arm of the people left out."""
    made = {
        f"{name}{suffix}": tn.to_nano(fold.model, head=settings)
        for name, pair in FADING.items()
        for suffix, settings in zip((", kept", ""), pair, strict=True)
    }
    users, results = fold.users, []
    # The arms of a person are neighbours.
    for old, new in zip(users, users[2:] + users[:2], strict=True):
        random = np.random.default_rng(0)
        before = random.permutation(len(old.label) + len(old.label_scored))
        after = random.permutation(len(new.label))[:NEW_WINDOWS]
        result: Accuracies = {}
        for name, nano in made.items():
            features = nano.features_int8(torch.cat([old.x, old.x_scored])[before])
            worn = Samples(features, torch.cat([old.label, old.label_scored])[before])
            own = Samples(nano.features_int8(new.x[after]), new.label[after])
            scored = Samples(nano.features_int8(new.x_scored), new.label_scored)
            result[name] = percent_after_streams(nano, [worn, own], scored)
            if name.endswith(", kept"):
                result[name.replace("kept", "fresh")] = percent_after_streams(nano, [own], scored)
        results.append(result)
    return results


def percent_after_streams(nano: tn.NanoModule, streams: list[Samples], scored: Samples) -> float:
    """What a head recognises once it has learnt one stream after the other; one with a ring keeps both."""
    head = nano.head
    assert isinstance(head, SgdHead | LdaHead | PrototypeHead)
    head.reset()
    features = torch.cat([stream.features for stream in streams])
    label = torch.cat([stream.label for stream in streams])
    if not isinstance(head, SgdHead):
        head.fit(features, label)
        return score(head, scored)
    for stop in np.cumsum([len(stream.label) for stream in streams]).tolist():
        head.fit(features[:stop], label[:stop], EPOCHS_ON_BOARD)
    return score(head, scored)
