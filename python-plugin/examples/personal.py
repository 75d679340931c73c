"""One fold of the watch demo: a backbone from many people, and heads that learn a person's arm on the board.

Every accuracy is a fraction of windows. "All windows" are those of the people left out of training; "scored
windows" are, of one person's arm, those after the first 30 % of each recording (`watch.personal_split`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from board import (
    classes,
    differing_bytes,
    differing_logits,
    learn,
    predict,
    real_features,
    replay,
    trainable_head,
)
from rich.progress import track
from torch import Tensor
from torch_nano import NanoModule, freeze, to_nano
from torch_nano.device.client import Device
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.heads import LDA, SGD, HeadSettings, SgdHead, Start
from torch_nano.results import VerifyReport
from training import IntArray, accuracy, logistic_regression
from watch import (
    EXERCISES,
    Split,
    WatchNet,
    Windows,
    axis_range,
    normalise,
    person_arms,
    personal_split,
    split,
    train,
)

ARMS = ("left", "right")
EPOCHS_ON_BOARD = 20
DESCENT = SGD(0.2, halve_every=4, guard=8)
"""Of the head that learns by gradient descent: the best of twelve pairs of rate and halving on seeds 3, 4, 5
(personal mean 92.6 %; 0.05 without halving: 91.6). The guard keeps every 8th window aside."""


@dataclass(frozen=True)
class PersonArm:
    """Results of learning one person's arm on the board, on that arm's scored windows."""

    subject: int
    arm: str
    #: Numbers of windows learnt from, and scored.
    learnt: int
    scored: int
    #: Accuracies, all on the same int8 features: the head as it was shipped; after learning on the board, by
    #: linear discriminant analysis with the factory's knowledge as its start, and by gradient descent with a
    #: guard; and float logistic regression fitted on the windows learnt from.
    generic: float
    personal: float
    personal_sgd: float
    logistic: float
    #: Whether the guard took the gradient descent back.
    taken_back: bool
    #: Instructions on the board: of gradient descent, of solving for the other head's weights, and of one
    #: prediction.
    training_instructions: int
    commit_instructions: int
    prediction_instructions: int
    #: Bytes that differ between board and PC: both heads after learning, and their logits.
    differing_head_bytes: int
    differing_logit_bytes: int


@dataclass(frozen=True)
class PowerCut:
    """A power cut while the board learns an arm, and what it still has after the restart."""

    subject: int
    arm: str
    #: Windows learnt and saved before the cut.
    windows: int
    #: Bytes of the head changed by one more window, which was not saved.
    lost_bytes: int
    #: Bytes in which the head after the restart differs from the saved one.
    differing_head_bytes: int


@dataclass(frozen=True)
class Learnt:
    """What a board has learnt of an arm, compared with the PC."""

    accuracy: float
    taken_back: bool
    prediction_instructions: int
    differing_head_bytes: int
    differing_logit_bytes: int


@dataclass(frozen=True)
class Fold:
    """A model, the people left out of its training, and its results on all their windows."""

    left_out: tuple[int, ...]
    #: The windows of all people, and as the model's input.
    windows: Windows
    x: Tensor
    #: Indices of the windows learnt from, and of all windows of the people left out.
    train: IntArray
    test: IntArray
    #: The same backbone with a head that learns by gradient descent, and by linear discriminant analysis.
    sgd: NanoModule
    lda: NanoModule
    #: Numbers of right predictions on the windows `test`, of the float and of the int8 model.
    right_float: int
    right_int8: int
    #: The int8 model on the board against the PC, on the windows `test`.
    verified: VerifyReport


def make_fold(windows: Windows, left_out: tuple[int, ...], *, seed: int, epochs: int) -> Fold:
    """Trains in float without the people left out, converts, and compares the board with the PC."""
    parts = split(windows, left_out)
    x = normalise(windows.x, axis_range(windows.x[parts.train]))
    people = ", ".join(map(str, left_out))
    model = train(
        x[parts.train],
        windows.exercise[parts.train],
        seed=seed,
        epochs=epochs,
        description=f"training without {people}",
    )
    own = x[parts.train]
    sgd = convert(model, own)
    arms = len(ARMS) * windows.subject[parts.train] + windows.arm[parts.train]
    start = Start((own, torch.from_numpy(windows.exercise[parts.train])), groups=arms)
    lda = convert(model, own, LDA(start=start))
    test, expected = x[parts.test], torch.from_numpy(windows.exercise[parts.test])
    with torch.inference_mode():
        right_float = int((model(test).argmax(1) == expected).sum())
    right_int8 = int((trainable_head(sgd).predict(sgd.features_int8(test)) == expected).sum())
    verified = sgd.verify("rv32imc", test)
    return Fold(left_out, windows, x, parts.train, parts.test, sgd, lda, right_float, right_int8, verified)


def convert(model: WatchNet, x: Tensor, head: HeadSettings = DESCENT) -> NanoModule:
    """The model in int8: backbone in flash, head in RAM; `x` are typical inputs."""
    freeze(model, "features.*")
    return to_nano(model, x[:1], calibrate=x, head=head, labels=list(EXERCISES))


def learn_personally(fold: Fold) -> tuple[list[PersonArm], PowerCut]:
    """Learns each arm of the people left out on two emulated boards, one for each kind of head, and again on
    the PC.

    In the middle the power of the board that learns by sums is cut. That arm's head is compared with one that
    learnt without a cut.
    """
    people = ", ".join(map(str, fold.left_out))
    every = list(person_arms(fold.left_out))
    arms = []
    with TemporaryDirectory() as folder, ExitStack() as boards:

        def start(nano: NanoModule) -> Device:
            stream = QemuBoard(nano.image, flash=Path(folder) / type(nano.head).__name__)
            return boards.enter_context(Device(stream))

        lda, sgd = start(fold.lda), start(fold.sgd)
        for number, (subject, arm) in enumerate(track(every, f"on the board: people {people}")):
            parts = personal_split(fold.windows, subject, arm)
            own, labels = fold.x[parts.train], fold.windows.exercise[parts.train]
            lda.reset()
            sgd.reset()
            saved = 0
            if number == len(every) // 2:
                saved = len(labels) // 2
                learn(lda, fold.lda, own[:saved], labels[:saved], 1)
                lda.save()
                before = lda.head_state()
                learn(lda, fold.lda, own[saved : saved + 1], labels[saved : saved + 1], 1)
                lost = differing_bytes(before, lda.head_state())
                # The emulator is killed: nothing is flushed.
                lda.close()
                lda = start(fold.lda)
                differing = differing_bytes(before, lda.head_state())
                cut = PowerCut(subject, ARMS[arm], saved, lost, differing)
            commit = learn(lda, fold.lda, own[saved:], labels[saved:], 1)
            training = learn(sgd, fold.sgd, own, labels, EPOCHS_ON_BOARD)
            arms.append(_person_arm(fold, (lda, sgd), subject, arm, (commit, training)))
    return arms, cut


def _person_arm(
    fold: Fold, devices: tuple[Device, Device], subject: int, arm: int, instructions: tuple[int, int]
) -> PersonArm:
    """Compares what the boards, by sums and by descent, have learnt of an arm with the PC, and with the head
    before.
    """
    exercise = fold.windows.exercise
    parts = personal_split(fold.windows, subject, arm)
    own, scored = fold.x[parts.train], fold.x[parts.test]

    head = trainable_head(fold.sgd)
    head.reset()
    generic = head.predict(fold.sgd.features_int8(scored)).numpy()
    logistic = logistic_regression(
        real_features(fold.sgd, own), exercise[parts.train], real_features(fold.sgd, scored)
    )
    lda, sgd = (
        _compare(fold, nano, device, parts)
        for nano, device in zip((fold.lda, fold.sgd), devices, strict=True)
    )
    commit, training = instructions
    return PersonArm(
        subject=subject,
        arm=ARMS[arm],
        learnt=len(parts.train),
        scored=len(parts.test),
        generic=accuracy(generic, exercise[parts.test]),
        personal=lda.accuracy,
        personal_sgd=sgd.accuracy,
        logistic=accuracy(logistic, exercise[parts.test]),
        taken_back=sgd.taken_back,
        training_instructions=training,
        commit_instructions=commit,
        prediction_instructions=max(lda.prediction_instructions, sgd.prediction_instructions),
        differing_head_bytes=lda.differing_head_bytes + sgd.differing_head_bytes,
        differing_logit_bytes=lda.differing_logit_bytes + sgd.differing_logit_bytes,
    )


def _compare(fold: Fold, nano: NanoModule, device: Device, parts: Split) -> Learnt:
    """What a board has learnt of the windows `parts`, and where the PC differs."""
    exercise, scored = fold.windows.exercise, fold.x[parts.test]
    predictions = predict(device, nano, scored)
    state = replay(nano, fold.x[parts.train], exercise[parts.train], EPOCHS_ON_BOARD)
    head = trainable_head(nano)
    learnt = Learnt(
        accuracy=accuracy(classes(predictions), exercise[parts.test]),
        taken_back=isinstance(head, SgdHead) and head.taken_back,
        prediction_instructions=max(prediction.ticks for prediction in predictions),
        differing_head_bytes=differing_bytes(state, device.head_state()),
        differing_logit_bytes=differing_logits(predictions, nano, scored),
    )
    head.reset()
    return learnt
