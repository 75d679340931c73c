"""Heads that start from what the factory knows, and learn a few samples of a user who differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch_nano as tn
from image_tasks import load_tasks
from learning_heads import Accuracies, first_of_each, percent, real, score
from learning_sets import CLASSES, FEATURES, DataSet, Samples, mnist_1d, mnist_5k, ranged, train_all
from torch import Tensor, nn
from torch_nano.heads import (
    LDA,
    SGD,
    AutoRate,
    HeadSettings,
    LdaHead,
    Prototype,
    PrototypeHead,
    SgdHead,
    Start,
)
from training import IntArray, reproducible

RATES = tuple(0.0025 * 2**power for power in range(8))
"""The fixed learning rates that the one by the features is compared with."""
EPOCHS, HALVE_EVERY = 20, 4
SHOTS: tuple[int | None, ...] = (0, 1, 2, 5, 10, 50, None)
"""Samples of each class; None: all. A user with fewer is not measured."""
LARGEST_LOSS_AT_START, LARGEST_LOSS, LARGEST_RATE_GAP = 1.0, 0.5, 0.5
"""Points: to the layer that is shipped, to the head that learns the same samples without a start, and of the
rate that fits to the best fixed one."""
Shots = dict[str, Accuracies]
"""% by learner and number of samples."""


@dataclass(frozen=True)
class Shipped:
    """A model as a factory ships it, and what it knows."""

    #: With the trained Linear.
    model: tn.qat.QatModule
    #: Of that Linear.
    layer: nn.Linear
    #: The factory's samples.
    x: Tensor
    label: IntArray
    #: Whom each sample is from, if that is known.
    groups: IntArray | None = None


@dataclass(frozen=True)
class User:
    """A user's inputs and classes, to learn from and to be scored on."""

    x: Tensor
    label: Tensor
    x_scored: Tensor
    label_scored: Tensor
    #: Users of one person are never each other's examples.
    person: int = 0


def fitting_rates(users: list[User]) -> dict[int, AutoRate | Literal["auto"]]:
    """The rate for each person, fitted to the other users, whom the backbone does not know either."""
    rates: dict[int, AutoRate | Literal["auto"]] = {}
    for person in sorted({user.person for user in users}):
        others = [user for user in users if user.person != person]
        if not others:
            return {person: "auto"}
        parts = [
            (x, y) for user in others for x, y in ((user.x, user.label), (user.x_scored, user.label_scored))
        ]
        groups = np.repeat(np.arange(len(others)), [len(user.x) + len(user.x_scored) for user in others])
        data = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        rates[person] = AutoRate(data, groups, epochs=EPOCHS)
    return rates


def shots_of(shipped: Shipped, users: list[User], draws: int) -> list[Shots]:
    """The accuracies of each user: means over draws of the samples learnt from."""
    start = Start((shipped.x, torch.from_numpy(shipped.label)), groups=shipped.groups)
    started = tn.to_nano(shipped.model, head=LDA(start=start))
    others: dict[str, HeadSettings] = {
        "prototype": Prototype(start=start),
        "lda alone": LDA(),
        "prototype alone": Prototype(),
    }
    heads = {name: tn.to_nano(shipped.model, head=settings).head for name, settings in others.items()}
    heads["lda"] = started.head

    def descent(rate: float | AutoRate | Literal["auto"]) -> SgdHead:
        head = tn.to_nano(shipped.model, head=SGD(rate, halve_every=HALVE_EVERY)).head
        assert isinstance(head, SgdHead)
        return head

    descending = {f"sgd {rate}": descent(rate) for rate in RATES} | {"sgd, unknown users": descent("auto")}
    fitting = {person: descent(rate) for person, rate in fitting_rates(users).items()}
    layer = [parameter.detach().numpy() for parameter in (shipped.layer.weight, shipped.layer.bias)]
    most = max(int(np.bincount(user.label.numpy()).max()) for user in users)
    results = []
    for user in users:
        learnt, scored = (
            Samples(started.features_int8(x), label)
            for x, label in ((user.x, user.label), (user.x_scored, user.label_scored))
        )
        numbers = real(scored.features, started.output_quantization)
        generic = percent(np.asarray((numbers @ layer[0].T + layer[1]).argmax(1)), scored.label)
        descending["sgd"] = fitting[user.person]
        shots: Shots = {"shipped": {}, **{name: {} for name in heads}, **{name: {} for name in descending}}
        for count in SHOTS:
            row = "all" if count is None else str(count)
            if count is not None and count > 2 * most:
                continue
            shots["shipped"][row] = generic
            for name, head in heads.items():
                assert isinstance(head, LdaHead | PrototypeHead)
                if count != 0 or "alone" not in name:
                    shots[name][row] = float(np.mean(list(_draws(head, learnt, scored, count, draws))))
            for name, descended in descending.items():
                shots[name][row] = float(np.mean(list(_draws(descended, learnt, scored, count, draws))))
        results.append(shots)
    return results


def with_best_rate(shots: Shots) -> Shots:
    """With the best of the fixed rates for each number of samples in place of all."""
    fixed = [shots[f"sgd {rate}"] for rate in RATES]
    kept = {name: row for name, row in shots.items() if name == "sgd" or not name.startswith("sgd ")}
    return {**kept, "sgd, best rate": {row: max(one[row] for one in fixed) for row in fixed[0]}}


def rate_gaps(sets: dict[str, Shots]) -> dict[str, Accuracies]:
    """What the rate that fits loses to the best of the fixed ones, in points, by number of samples."""
    return {
        name: {row: best - shots["sgd"][row] for row, best in shots["sgd, best rate"].items()}
        for name, shots in sets.items()
    }


def _draws(
    head: LdaHead | PrototypeHead | SgdHead, learnt: Samples, scored: Samples, count: int | None, draws: int
) -> Iterator[float]:
    """What it recognises after learning `count` samples of each class, drawn at random."""
    for seed in range(draws if count else 1):
        order = np.random.default_rng(seed).permutation(len(learnt.label))
        chosen = order if count is None else first_of_each(learnt.label, order, count)
        head.reset()
        if len(chosen):
            own = learnt.of(chosen)
            if isinstance(head, SgdHead):
                head.fit(own.features, own.label, EPOCHS)
            else:
                head.fit(own.features, own.label)
        yield score(head, scored)


def mean_shots(results: list[Shots]) -> Shots:
    """The mean over users, and seeds."""
    return {
        name: {row: float(np.mean([result[name][row] for result in results])) for row in rows}
        for name, rows in results[0].items()
    }


def missed(sets: dict[str, Shots]) -> list[str]:
    """The bars that a head with a start misses."""
    found = []
    for name, shots in sets.items():
        loss = shots["shipped"]["0"] - shots["lda"]["0"]
        if loss > LARGEST_LOSS_AT_START:
            found.append(f"{name}: lda at 0 samples is {loss:.2f} points below the layer that is shipped")
        found += [
            f"{name}: sgd at {row} samples of each class is {gap:.2f} points below the best of {len(RATES)} "
            f"fixed rates, and may be {LARGEST_RATE_GAP}"
            for row, gap in rate_gaps(sets)[name].items()
            if gap > LARGEST_RATE_GAP
        ]
        for head in ("lda", "prototype"):
            for row, alone in shots[f"{head} alone"].items():
                if alone - shots[head][row] > LARGEST_LOSS:
                    found.append(
                        f"{name}: {head} at {row} samples of each class is {alone - shots[head][row]:.2f} "
                        f"points below the same without a start, and may be {LARGEST_LOSS}"
                    )
    return found


def shifted_sets(seed: int, epochs: int | None = None) -> Iterator[tuple[str, Shipped, list[User]]]:
    """Sets whose user differs from the factory, by name."""
    data = mnist_5k()
    shipped = ship(data, seed, epochs)
    _, other = load_tasks(1, 900, 800, seed)
    # One channel of the three equal ones.
    user = User(other.x[:, :1], other.y, other.x_test[:, :1], other.y_test)
    yield "mnist_5k to digits", shipped, [user]
    shipped = ship(mnist_1d(), seed, epochs)
    users = []
    for person, change in enumerate(
        ({"iid_noise_scale": 0.15}, {"corr_noise_scale": 0.5}, {"shear_scale": 1.5})
    ):
        noisy = mnist_1d(seed=seed + 1, **change)
        label = torch.from_numpy(noisy.label)
        users.append(User(noisy.x[:1500], label[:1500], noisy.x[1500:3000], label[1500:3000], person))
    yield "mnist_1d with other noise", shipped, users


def ship(data: DataSet, seed: int, epochs: int | None) -> Shipped:
    """A backbone and a Linear, trained on 3,000 samples of all classes."""
    chosen = np.random.default_rng(seed).permutation(len(data.x))[:3000]
    x, label = data.x[chosen], torch.from_numpy(data.label[chosen])
    with reproducible(seed):
        layer = nn.Linear(FEATURES, CLASSES)
        model = nn.Sequential(data.backbone(), layer)
        train_all(model, x, label, data.epochs if epochs is None else epochs)
    return Shipped(ranged(model.eval(), x), layer, x, data.label[chosen])
