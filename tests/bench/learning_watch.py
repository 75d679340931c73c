"""Heads that learn a person's arm: the watch demo's models, people and windows, without a board."""

from __future__ import annotations

import numpy as np
import torch
import torch_nano as tn
import watch
from learning_heads import Accuracies, first_of_each, float_lda, heads_of, percent, real, recognised, score
from learning_sets import Samples, ranged
from personal import EPOCHS_ON_BOARD, LEARNING_RATE
from torch_nano.heads import SGD
from training import logistic_regression

LEARNERS = ("generic", "sgd", "logistic", "lda", "float_lda", "prototype")
ALL = "all"
SHOTS = (1, 2, 5)
"""Windows of each exercise; a person-arm has 4 to 12 of each to learn from."""


def person_arms(
    windows: watch.Windows, left_out: tuple[int, ...], *, seed: int, epochs: int
) -> list[dict[str, Accuracies]]:
    """What each of `LEARNERS` recognises of an arm's scored windows, in %, once it has learnt so many windows
    of each exercise (`SHOTS`, `ALL`): one result for each arm of the people left out."""
    parts = watch.split(windows, left_out)
    x = watch.normalise(windows.x, watch.axis_range(windows.x[parts.train]))
    exercise = torch.from_numpy(windows.exercise)
    people = ", ".join(map(str, left_out))
    trained = watch.train(
        x[parts.train],
        windows.exercise[parts.train],
        seed=seed,
        epochs=epochs,
        description=f"watch, seed {seed}, training without {people}",
    )
    model = ranged(trained, x[parts.train])
    nano = tn.to_nano(model, head=SGD(LEARNING_RATE))
    heads = heads_of(model, SGD(LEARNING_RATE))
    results = []
    for subject, arm in watch.person_arms(left_out):
        own = watch.personal_split(windows, subject, arm)
        learnt, scored = (
            Samples(nano.features_int8(x[part]), exercise[part]) for part in (own.train, own.test)
        )
        heads.sgd.reset()
        generic = score(heads.sgd, scored)
        shots: dict[str, Accuracies] = {}
        for name, count in [*((str(count), count) for count in SHOTS), (ALL, len(own.train))]:
            user = learnt.of(first_of_each(learnt.label, np.arange(len(own.train)), count))
            data = [real(samples.features, nano.output_quantization) for samples in (user, scored)]
            floats = data[0], user.label.numpy(), data[1]
            found = recognised(heads, user, scored, EPOCHS_ON_BOARD)
            found["generic"] = generic
            found["logistic"] = percent(logistic_regression(*floats), scored.label)
            found["float_lda"] = percent(float_lda(*floats), scored.label)
            shots[name] = {one: found[one] for one in LEARNERS}
        results.append(shots)
    return results
