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
from torch_nano.results import VerifyReport
from training import IntArray, accuracy, logistic_regression
from watch import (
    EXERCISES,
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
LEARNING_RATE = 0.05
"""Of the head: the best of 0.01, 0.02, 0.05, 0.1, 0.2 on seeds 3, 4, 5 (personal mean 92.3 %; 0.02: 91.7)."""
EPOCHS_ON_BOARD = 20
EPOCHS_BEFORE_POWER_CUT = 12


@dataclass(frozen=True)
class PersonArm:
    """Results of learning one person's arm on the board, on that arm's scored windows."""

    subject: int
    arm: str
    #: Numbers of windows learnt from, and scored.
    learnt: int
    scored: int
    #: Accuracies: the head as it was shipped, after learning on the board, and float logistic regression
    #: fitted on the windows learnt from; all three on the same int8 features.
    generic: float
    personal: float
    logistic: float
    #: Instructions of the training on the board, and of one prediction.
    training_instructions: int
    prediction_instructions: int
    #: Bytes that differ between board and PC: the head after learning, and its logits.
    differing_head_bytes: int
    differing_logit_bytes: int


@dataclass(frozen=True)
class PowerCut:
    """A power cut while the board learns an arm, and what it still has after the restart."""

    subject: int
    arm: str
    #: Epochs saved before the cut.
    epochs: int
    #: Bytes of the head changed by one more epoch, which was not saved.
    lost_bytes: int
    #: Bytes in which the head after the restart differs from the saved one.
    differing_head_bytes: int


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
    nano: NanoModule
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
    nano = convert(model, x[parts.train])
    test, expected = x[parts.test], torch.from_numpy(windows.exercise[parts.test])
    with torch.inference_mode():
        right_float = int((model(test).argmax(1) == expected).sum())
    right_int8 = int((trainable_head(nano).predict(nano.features_int8(test)) == expected).sum())
    verified = nano.verify("rv32imc", test)
    return Fold(left_out, windows, x, parts.train, parts.test, nano, right_float, right_int8, verified)


def convert(model: WatchNet, x: Tensor) -> NanoModule:
    """The model in int8: backbone in flash, head in RAM; `x` are typical inputs."""
    freeze(model, "features.*")
    return to_nano(model, x[:1], calibrate=x, learning_rate=LEARNING_RATE, labels=list(EXERCISES))


def learn_personally(fold: Fold) -> tuple[list[PersonArm], PowerCut]:
    """Learns each arm of the people left out on one emulated board, and again on the PC.

    In the middle the board's power is cut. That arm's head is compared with one that learnt without a cut.
    """
    people = ", ".join(map(str, fold.left_out))
    every = list(person_arms(fold.left_out))
    arms = []
    with TemporaryDirectory() as folder, ExitStack() as boards:

        def start() -> Device:
            stream = QemuBoard(fold.nano.image, flash=Path(folder) / "flash")
            return boards.enter_context(Device(stream))

        device = start()
        for number, (subject, arm) in enumerate(track(every, f"on the board: people {people}")):
            parts = personal_split(fold.windows, subject, arm)
            own, labels = fold.x[parts.train], fold.windows.exercise[parts.train]
            device.reset()
            epochs, instructions = EPOCHS_ON_BOARD, 0
            if number == len(every) // 2:
                epochs -= EPOCHS_BEFORE_POWER_CUT
                instructions = learn(device, fold.nano, own, labels, EPOCHS_BEFORE_POWER_CUT)
                device.save()
                saved = device.head_state()
                device.train(epochs=1)
                lost = differing_bytes(saved, device.head_state())
                # The emulator is killed: nothing is flushed.
                device.close()
                device = start()
                differing = differing_bytes(saved, device.head_state())
                cut = PowerCut(subject, ARMS[arm], EPOCHS_BEFORE_POWER_CUT, lost, differing)
            instructions += learn(device, fold.nano, own, labels, epochs)
            arms.append(_person_arm(fold, device, subject, arm, instructions))
    return arms, cut


def _person_arm(fold: Fold, device: Device, subject: int, arm: int, instructions: int) -> PersonArm:
    """Compares what the board has learnt of an arm with the PC, and with the head before."""
    nano, exercise = fold.nano, fold.windows.exercise
    parts = personal_split(fold.windows, subject, arm)
    own, scored = fold.x[parts.train], fold.x[parts.test]

    head = trainable_head(nano)
    head.reset()
    generic = head.predict(nano.features_int8(scored)).numpy()

    predictions = predict(device, nano, scored)

    state = replay(nano, own, exercise[parts.train], EPOCHS_ON_BOARD)
    differing_head = differing_bytes(state, device.head_state())
    differing = differing_logits(predictions, nano, scored)
    head.reset()

    logistic = logistic_regression(
        real_features(nano, own), exercise[parts.train], real_features(nano, scored)
    )
    return PersonArm(
        subject=subject,
        arm=ARMS[arm],
        learnt=len(parts.train),
        scored=len(parts.test),
        generic=accuracy(generic, exercise[parts.test]),
        personal=accuracy(classes(predictions), exercise[parts.test]),
        logistic=accuracy(logistic, exercise[parts.test]),
        training_instructions=instructions,
        prediction_instructions=max(prediction.ticks for prediction in predictions),
        differing_head_bytes=differing_head,
        differing_logit_bytes=differing,
    )
