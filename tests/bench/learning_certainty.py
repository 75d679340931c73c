"""How far a head's confidence can be trusted, and what it makes of classes that it was never taught, or that
are rare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch_nano as tn
from learning_heads import EPOCHS, SCHEDULE, Accuracies, first_of_each, real, score
from learning_sets import FACTORY_CLASSES, Frozen, Samples, ranged, with_head
from learning_watch import Fold
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
from torch import nn
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.heads import LDA, Head, HeadSettings, LdaHead, Prototype, Rejection, SgdHead
from training import IntArray
from watch import personal_split

FALSE_ALARMS = 0.05
"""The wanted rate of known inputs that are rejected."""
LARGEST_ECE, FALSE_ALARM_POINTS, LARGEST_BALANCE_GAP = 0.05, 2.0, 1.0
BINS = 15
HEADS: dict[str, HeadSettings] = {"sgd": SCHEDULE, "lda": LDA(), "prototype": Prototype()}
TAUGHT = 0.25
"""Part of an arm's windows that a head learns, as in the watch's demo."""
RARE = 10
"""Every second class of an imbalanced stream has one sample for so many of the others."""


@dataclass(frozen=True)
class Scored:
    """What heads make of test samples."""

    #: Of those of known classes.
    confidence: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    #: Of all.
    distance: IntArray
    accepted: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


def figures(parts: list[Scored]) -> Accuracies:
    """Of several users or seeds: calibration error; the mean area under the ROC curve of known against
    unknown samples in %; and the % of known and unknown samples that are rejected."""
    confidence, right = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("confidence", "right")
    )
    areas = [100 * float(roc_auc_score(part.known, -part.distance)) for part in parts]
    false_alarms, found = (
        100 * float(np.mean(np.concatenate([~part.accepted[part.known == known] for part in parts])))
        for known in (True, False)
    )
    return {
        "ece": calibration_error(confidence, right),
        "auroc": float(np.mean(areas)),
        "false_alarms": false_alarms,
        "unknown_found": found,
    }


def calibration_error(confidence: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over `BINS` equal bins (Naeini, Cooper, Hauskrecht, 2015).

    >>> calibration_error(np.array([0.75, 0.75], np.float32), np.array([True, False]))
    0.25
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(float(confidence[bins == one].mean()) - float(right[bins == one].mean()))
        * float((bins == one).sum())
        for one in np.unique(bins)
    ]
    return sum(gaps) / len(confidence)


def learn(head: Head, samples: Samples) -> None:
    """Teaches a head, from its initial state, these samples and no others."""
    head.reset()
    if isinstance(head, SgdHead):
        head.fit(samples.features, samples.label, EPOCHS)
    else:
        head.fit(samples.features, samples.label)  # type: ignore[operator]


def scored(head: Head, samples: Samples, known: npt.NDArray[np.bool_]) -> Scored:
    """What a head that has learnt makes of samples."""
    made = head.certainty(samples.features)
    confidence, distance, accepted = (part.numpy() for part in (made.confidence, made.distance, made.known))
    right = (head.predict(samples.features) == samples.label).numpy()
    return Scored(confidence[known], right[known], distance, accepted, known)


def on_set(frozen: Frozen, seed: int) -> dict[str, Scored]:
    """Heads of the classes that the factory knows: half of the user's samples calibrate, the head learns the
    others, and the test samples are of all classes."""
    label = frozen.user.label.numpy()
    order = np.random.default_rng(seed).permutation(np.flatnonzero(label < FACTORY_CLASSES))
    held_out, taught = np.array_split(order, 2)
    model = ranged(with_head(frozen.backbone, FACTORY_CLASSES), frozen.factory[0])
    known = frozen.scored.label.numpy() < FACTORY_CLASSES
    found = {}
    for name, settings in HEADS.items():
        rejection = Rejection(
            (frozen.inputs[held_out], frozen.user.label[held_out]), false_alarms=FALSE_ALARMS, epochs=EPOCHS
        )
        head = tn.to_nano(model, head=settings, rejection=rejection).head
        assert head is not None
        learn(head, frozen.user.of(taught))
        found[name] = scored(head, frozen.scored, known)
    return found


def on_watch(fold: Fold) -> dict[str, list[Scored]]:
    """For each arm of the people left out: a head of all exercises but one, a different one for each person.
    The other people left out calibrate; it learns a quarter of an arm's windows, and the others are scored.
    """
    windows = fold.windows
    found: dict[str, list[Scored]] = {}
    for person in fold.left_out:
        missing = person % (int(windows.exercise.max()) + 1)
        label = windows.exercise - (windows.exercise > missing)
        held_out = np.flatnonzero(
            np.isin(windows.subject, [other for other in fold.left_out if other != person])
            & (windows.exercise != missing)
        )
        arms = 2 * windows.subject + windows.arm
        model = without_class(fold, missing)
        for name, settings in HEADS.items():
            rejection = Rejection(
                (fold.x[held_out], torch.from_numpy(label[held_out])),
                groups=arms[held_out],
                taught=TAUGHT,
                false_alarms=FALSE_ALARMS,
                epochs=EPOCHS,
            )
            nano = tn.to_nano(model, head=settings, rejection=rejection)
            assert nano.head is not None
            for arm in (0, 1):
                own = personal_split(windows, person, arm)
                taught = own.train[windows.exercise[own.train] != missing]
                learn(nano.head, samples_of(nano, fold, label, taught))
                known = windows.exercise[own.test] != missing
                made = scored(nano.head, samples_of(nano, fold, label, own.test), known)
                found.setdefault(name, []).append(made)
    return found


def samples_of(nano: tn.NanoModule, fold: Fold, label: IntArray, chosen: IntArray) -> Samples:
    return Samples(nano.features_int8(fold.x[chosen]), torch.from_numpy(label[chosen]))


def without_class(fold: Fold, missing: int) -> tn.qat.QatModule:
    """The watch's model with a Linear that has no row for one class."""
    net = fold.trained
    kept = [one for one in range(net.head.out_features) if one != missing]
    layer = nn.Linear(net.head.in_features, len(kept))
    with torch.no_grad():
        layer.weight.copy_(net.head.weight[kept])
        layer.bias.copy_(net.head.bias[kept])
    whole, net.head = net.head, layer
    try:
        return ranged(net, fold.x[fold.parts.train])
    finally:
        net.head = whole


def imbalanced(label: IntArray, seed: int) -> IntArray:
    """Indices, shuffled, of a stream with a tenth of the samples of every second class."""
    order = np.random.default_rng(seed).permutation(len(label))
    counts = np.bincount(label)
    most = np.where(np.arange(len(counts)) % 2, np.maximum(counts // RARE, 1), counts)
    return np.concatenate([order[label[order] == one][: most[one]] for one in range(len(counts))])[
        np.random.default_rng(seed + 1).permutation(int(np.minimum(most, counts).sum()))
    ]


def balance(
    model: tn.qat.QatModule, meaning: Quantization, user: Samples, test: Samples, seed: int
) -> dict[str, Accuracies]:
    """What heads that learn an imbalanced stream of the user's samples recognise, in %: the mean over
    classes, and over samples as frequent as in the stream."""
    stream = user.of(imbalanced(user.label.numpy(), seed))
    settings: dict[str, HeadSettings] = {
        "sgd": SCHEDULE,
        "sgd, balanced": replace(SCHEDULE, balance=True),
        "lda": LDA(),
    }
    predictions = {}
    for name, setting in settings.items():
        head = tn.to_nano(model, head=setting).head
        assert head is not None
        learn(head, stream)
        predictions[name] = head.predict(test.features).numpy()
    x, scored = real(stream.features, meaning), real(test.features, meaning)
    for name, weights in (("float", None), ("float, balanced", "balanced")):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight=weights, max_iter=500))
        predictions[name] = classifier.fit(x, stream.label.numpy()).predict(scored)
    share = np.bincount(stream.label.numpy(), minlength=int(test.label.max()) + 1) / len(stream.label)
    return {name: by_class(found, test.label.numpy(), share) for name, found in predictions.items()}


def balance_on_watch(fold: Fold, seed: int) -> list[dict[str, Accuracies]]:
    """The same of each arm of the people left out."""
    nano = tn.to_nano(fold.model, head=LDA())
    found = []
    for user in fold.users:
        taught, test = (
            Samples(nano.features_int8(x), label)
            for x, label in ((user.x, user.label), (user.x_scored, user.label_scored))
        )
        found.append(balance(fold.model, nano.output_quantization, taught, test, seed))
    return found


def by_class(found: IntArray, label: IntArray, share: npt.NDArray[np.float64]) -> Accuracies:
    """Balanced accuracy, and plain accuracy where classes have these shares, in %."""
    classes = np.unique(label)
    recall = np.array([np.mean(found[label == one] == one) for one in classes])
    share = share[classes] / share[classes].sum()
    return {"balanced": 100 * float(recall.mean()), "plain": 100 * float(recall @ share)}


UNLABELLED_SHOTS, SURE = (1, 2, 5, 10), 0.9
"""Samples of each class with a label, and the least confidence with which others are learnt without one."""


def unlabelled(frozen: Frozen, draws: int) -> Accuracies:
    """What LdaHead gains, in points, by learning the rest of the user's samples without labels, of the
    classes that it is sure of: by number of samples of each class with a label."""
    head = tn.to_nano(frozen.model, head=LDA()).head
    assert isinstance(head, LdaHead)
    gains = {}
    for shots in UNLABELLED_SHOTS:
        orders = [np.random.default_rng(seed).permutation(len(frozen.user.label)) for seed in range(draws)]
        drawn = [_gain(head, frozen.user.of(order), frozen.scored, shots) for order in orders]
        gains[str(shots)] = float(np.mean(drawn))
    return gains


def _gain(head: LdaHead, drawn: Samples, test: Samples, shots: int) -> float:
    taught = first_of_each(drawn.label, np.arange(len(drawn.label)), shots)
    learn(head, drawn.of(taught))
    before = score(head, test)
    rest = drawn.of(np.setdiff1d(np.arange(len(drawn.label)), taught))
    sure = np.flatnonzero((head.certainty(rest.features).confidence >= SURE).numpy())
    if len(sure):
        features = rest.features[sure]
        head.fit(features, head.predict(features))
    return score(head, test) - before


def missed(
    certainty: dict[str, dict[str, Accuracies]], balance: dict[str, dict[str, Accuracies]]
) -> list[str]:
    """The bars that are missed."""
    found = []
    for name, heads in certainty.items():
        for head, row in heads.items():
            if row["ece"] > LARGEST_ECE:
                found.append(
                    f"{name}: {head}'s calibration error is {row['ece']:.3f}, and may be {LARGEST_ECE}"
                )
            if abs(row["false_alarms"] - 100 * FALSE_ALARMS) > FALSE_ALARM_POINTS:
                found.append(
                    f"{name}: {head} rejects {row['false_alarms']:.2f} % of what it knows, and should "
                    f"{100 * FALSE_ALARMS:g} +- {FALSE_ALARM_POINTS:g} %"
                )
    for name, rows in balance.items():
        for head in ("sgd, balanced", "lda"):
            gap = rows["float, balanced"]["balanced"] - rows[head]["balanced"]
            if gap > LARGEST_BALANCE_GAP:
                found.append(
                    f"{name}: {head} is {gap:.2f} points of balanced accuracy behind float, and may be "
                    f"{LARGEST_BALANCE_GAP}"
                )
    return found


def show(
    console: Console,
    certainty: dict[str, dict[str, Accuracies]],
    balance: dict[str, dict[str, Accuracies]],
    gains: dict[str, Accuracies],
) -> None:
    """Prints all of it."""
    title = "confidence, and two classes (watch: one) that were never taught"
    columns = ("calibration error", "AUROC %", "false alarms %", "unknown rejected %")
    shown = Table("set", "head", *columns, title=title, title_justify="left")
    for name, heads in certainty.items():
        for head, row in heads.items():
            numbers = [
                f"{row['ece']:.3f}",
                *(f"{row[one]:.1f}" for one in ("auroc", "false_alarms", "unknown_found")),
            ]
            shown.add_row(name, head, *numbers, end_section=head == list(heads)[-1])
    console.print(shown)
    title = f"streams with 1 of {RARE} samples of every second class: accuracy in %"
    shown = Table("set", "head", "balanced", "as frequent", title=title, title_justify="left")
    for name, heads in balance.items():
        for head, row in heads.items():
            numbers = [f"{row[one]:.2f}" for one in ("balanced", "plain")]
            shown.add_row(name, head, *numbers, end_section=head == list(heads)[-1])
    console.print(shown)
    told = "; ".join(
        f"{name} " + ", ".join(f"{gain:+.2f} with {shots}" for shots, gain in row.items())
        for name, row in gains.items()
    )
    console.print(
        f"points that LdaHead gains from samples it is sure of, by labelled ones of each class: {told}"
    )
