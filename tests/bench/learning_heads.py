"""Heads that learn in integers, and the same in float, on the same int8 features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch_nano as tn
from learning_sets import CLASSES, Frozen, Samples, ranged, with_head
from reference.sgd_head import XORSHIFT_SEED, Xorshift32, visits  # type: ignore[import-not-found]
from torch import Tensor
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.heads import LDA, SGD, Head, HeadSettings, LdaHead, Prototype, PrototypeHead, SgdHead
from training import IntArray

Floats = npt.NDArray[np.float32]
Accuracies = dict[str, float]

EPOCHS, HALVE_EVERY = 20, 4
LEARNING_RATE = 0.05
"""With 0.02, 0.05, 0.1 float SGD's mean over the sets is 95.1, 95.4, 95.5 % (seeds 0 to 4, 10 and 11)."""
SCHEDULE = SGD(LEARNING_RATE, halve_every=HALVE_EVERY)
LEARNERS = ("sgd", "float_sgd", "lda", "float_lda", "prototype")


@dataclass(frozen=True)
class Heads:
    """The heads of one backbone, as shipped."""

    sgd: SgdHead
    #: Those that learn in one pass, by the names in `LEARNERS`.
    one_pass: dict[str, LdaHead | PrototypeHead]


def heads_of(model: tn.qat.QatModule, sgd: SGD) -> Heads:
    """A model converted with each trainer."""
    settings: dict[str, HeadSettings] = {"lda": LDA(), "prototype": Prototype()}
    descending = tn.to_nano(model, head=sgd).head
    assert isinstance(descending, SgdHead)
    one_pass = {}
    for name, setting in settings.items():
        head = tn.to_nano(model, head=setting).head
        assert isinstance(head, LdaHead | PrototypeHead)
        one_pass[name] = head
    return Heads(descending, one_pass)


def recognised(heads: Heads, user: Samples, scored: Samples, epochs: int) -> Accuracies:
    """What each head recognises of the scored samples, in %, once it has learnt the user's and no others."""
    heads.sgd.reset()
    heads.sgd.fit(user.features, user.label, epochs)
    found = {"sgd": score(heads.sgd, scored)}
    for name, head in heads.one_pass.items():
        head.reset()
        head.fit(user.features, user.label)
        found[name] = score(head, scored)
    return found


def score(head: Head, scored: Samples) -> float:
    """What a head recognises of the scored samples, in %."""
    return percent(head.predict(scored.features).numpy(), scored.label)


def percent(found: IntArray, expected: Tensor) -> float:
    return 100 * float(np.mean(found == expected.numpy()))


def accuracies(heads: Heads, user: Samples, scored: Samples, meaning: Quantization) -> Accuracies:
    """What each of `LEARNERS` recognises of the scored samples, in %."""
    data = real(user.features, meaning), user.label.numpy(), real(scored.features, meaning)
    floats = {"float_sgd": float_sgd(*data), "float_lda": float_lda(*data)}
    found = recognised(heads, user, scored, EPOCHS)
    found |= {name: percent(classes, scored.label) for name, classes in floats.items()}
    return {name: found[name] for name in LEARNERS}


def real(features: Tensor, meaning: Quantization) -> Floats:
    """The real numbers that int8 features stand for."""
    return (features.numpy().astype(np.float32) - np.float32(meaning.zero_point)) * np.float32(meaning.scale)


def float_sgd(
    x: Floats,
    label: IntArray,
    scored: Floats,
    learning_rate: float = LEARNING_RATE,
    shipped: Floats | None = None,
) -> IntArray:
    """SgdHead's training in float32: softmax regression with an ordinary bias, by the same rate, halvings of
    it, and order of the samples; from the shipped weights and biases [classes, features + 1], or from 0."""
    x = np.hstack([x, np.ones((len(x), 1), np.float32)])
    weights = np.zeros((CLASSES, x.shape[1]), np.float32) if shipped is None else shipped.copy()
    random = Xorshift32(XORSHIFT_SEED)
    for epoch in range(EPOCHS):
        rate = np.float32(learning_rate / 2 ** (epoch // HALVE_EVERY))
        for index in visits(random, len(x)):
            logits = weights @ x[index]
            error = np.exp(logits - logits.max())
            error /= error.sum()
            error[label[index]] -= 1
            weights -= np.outer(rate * error, x[index])
    return np.asarray((scored @ weights[:, :-1].T + weights[:, -1]).argmax(1), np.int64)


def float_lda(x: Floats, label: IntArray, scored: Floats) -> IntArray:
    """Linear discriminant analysis in float64 with equal priors, shrunk by lambda = 0.2 * trace / D, over the
    classes that `label` has (Hastie, Tibshirani, Friedman, eq. 4.10)."""
    classes, index = np.unique(label, return_inverse=True)
    samples = x.astype(np.float64)
    means = np.stack([samples[label == one].mean(0) for one in classes])
    deviations = samples - means[index]
    covariance = deviations.T @ deviations
    ridge = 0.2 * np.trace(covariance) / len(covariance)
    # One sample of each class has no spread: then any ridge gives the nearest mean.
    covariance += (ridge or 1.0) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means.T)
    biases = -(means.T * weights).sum(0) / 2
    return np.asarray(classes[(scored @ weights + biases).argmax(1)], np.int64)


def first_of_each(label: Tensor, order: IntArray, count: int) -> IntArray:
    """Indices, in `order`, of the first `count` samples of each class.

    >>> import torch
    >>> first_of_each(torch.tensor([1, 0, 1, 1, 0]), np.arange(5), 2).tolist()
    [0, 1, 2, 4]
    """
    seen: dict[int, int] = {}
    chosen = []
    for index in order.tolist():
        one = int(label[index])
        seen[one] = seen.get(one, 0) + 1
        if seen[one] <= count:
            chosen.append(index)
    return np.array(chosen, np.int64)


def few_shots(heads: Heads, frozen: Frozen, shots: int, draws: int, seed: int) -> Accuracies:
    """The mean of :func:`accuracies` over some draws of `shots` of the user's samples per class."""
    generator = np.random.default_rng(seed)
    results = []
    for _ in range(draws):
        order = generator.permutation(len(frozen.user.label))
        drawn = frozen.user.of(first_of_each(frozen.user.label, order, shots))
        results.append(accuracies(heads, drawn, frozen.scored, frozen.quantization))
    return {name: float(np.mean([result[name] for result in results])) for name in LEARNERS}


@dataclass(frozen=True)
class Incremental:
    """Classes that arrive one after another, against all at once; accuracies in % of all classes' samples."""

    #: Whether LdaHead's state is the same, to the byte, one class after another and all shuffled.
    same_bytes: bool
    lda: float
    lda_joint: float
    sgd: float
    sgd_joint: float


def class_incremental(sgd: SgdHead, frozen: Frozen) -> Incremental:
    """An LdaHead that starts with one class; each further class is added when its first sample arrives."""
    user, model = frozen.user, ranged(with_head(frozen.backbone, 1), frozen.factory[0])
    image = tn.to_nano(model, head=LDA(capacity=CLASSES)).image
    growing, joint = LdaHead(image), LdaHead(image)
    sgd.reset()
    for one in range(CLASSES):
        if one:
            growing.add_class()
            joint.add_class()
        arrived = user.of(np.flatnonzero(user.label.numpy() == one))
        growing.fit(arrived.features, arrived.label)
        sgd.fit(arrived.features, arrived.label, EPOCHS)
    joint.fit(user.features, user.label)
    same, alone = growing.state() == joint.state(), score(sgd, frozen.scored)
    sgd.reset()
    sgd.fit(user.features, user.label, EPOCHS)
    return Incremental(
        same, score(growing, frozen.scored), score(joint, frozen.scored), alone, score(sgd, frozen.scored)
    )
