"""Federated learning of ten watches: Flower aggregates their heads into one.

The backbone is trained on five people; ten simulated watches are on the arms of five others. Each watch
learns from its own windows, first alone, then with the fleet, and is scored on later windows of its own and
of the nine others. Only heads leave a watch, a few kilobytes each, never its windows.

    python python-plugin/examples/fleet.py
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch_nano as tn
from flwr.app import Context
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_nano.integrations.flower import HeadAveraging, LocalGrid, client_app, head_state
from training import IntArray, accuracy
from watch import EXERCISES, axis_range, load_windows, normalise, person_arms, personal_split, split, train

WEARERS = (6, 7, 8, 9, 10)
EPOCHS, ROUNDS = 20, 4
"""Gradient descent: epochs of a watch alone, and the rounds over which the fleet divides them."""
SETTINGS: tuple[tn.heads.HeadSettings, ...] = (tn.heads.SGD(learning_rate=0.05), tn.heads.LDA())


@dataclass(frozen=True)
class Watch:
    """The windows of one arm, as the device's input int8 [N, elements], and their exercises [N]."""

    own: npt.NDArray[np.int8]
    labels: IntArray
    scored: npt.NDArray[np.int8]
    expected: IntArray


@dataclass(frozen=True)
class Score:
    """Mean accuracy of the watches on their own scored windows, and on those of the nine others."""

    own: float
    others: float


@dataclass(frozen=True)
class Trained:
    """Results of one kind of head."""

    name: str
    #: With the head as shipped; None for a head that starts without samples.
    before: Score | None
    #: After each watch has learnt alone.
    local: Score
    #: With the fleet's head.
    federated: Score
    #: After each round, the accuracy that the watches report for all their scored windows.
    rounds: list[float]
    #: Bytes sent to a watch, and back, in each round.
    head_bytes: int
    #: Number of bytes in which the fleet's head differs from one that learnt all windows itself; None for a
    #: head that depends on their order.
    differing_from_union: int | None


def run(seed: int = 0, epochs: int = 20) -> list[Trained]:
    """Runs the example for each kind of head; the backbone is trained for `epochs`."""
    windows = load_windows()
    parts = split(windows, WEARERS)
    x = normalise(windows.x, axis_range(windows.x[parts.train]))
    model = train(x[parts.train], windows.exercise[parts.train], seed=seed, epochs=epochs)
    tn.freeze(model, "features.*")
    arms = [personal_split(windows, subject, arm) for subject, arm in person_arms(WEARERS)]
    result = []
    for settings in SETTINGS:
        nano = tn.to_nano(model, x[:1], calibrate=x[parts.train], head=settings, labels=list(EXERCISES))
        inputs = nano.device_inputs(x)
        watches = [
            Watch(
                *(inputs[arm.train], windows.exercise[arm.train]),
                *(inputs[arm.test], windows.exercise[arm.test]),
            )
            for arm in arms
        ]
        features = [nano.features_int8(x[arm.test]) for arm in arms]
        result.append(compare(nano, watches, features))
    return result


def compare(nano: tn.NanoModule, watches: list[Watch], features: list[Tensor]) -> Trained:
    """Lets the watches learn alone, then together; `features` are those of their scored windows."""
    assert nano.head is not None
    shipped = nano.head.state()
    with ExitStack() as opened:
        devices = [opened.enter_context(tn.Device("sim", nano=nano, progress=False)) for _ in watches]
        for device, watch in zip(devices, watches, strict=True):
            device.fit(watch.own, watch.labels, epochs=EPOCHS)
        local = [device.head_state() for device in devices]
        learns_sums = devices[0].info.ring_capacity == 0
        if learns_sums:
            # Reset, as sums learn each sample once: the fleet learns again what the watches learnt alone.
            for device in devices:
                device.reset()
        fleet, rounds = federate(nano, devices, watches, rounds=1 if learns_sums else ROUNDS)
    differing = None
    if learns_sums:
        with tn.Device("sim", nano=nano, progress=False) as device:
            device.fit(
                np.concatenate([watch.own for watch in watches]),
                np.concatenate([watch.labels for watch in watches]),
            )
            union = device.head_state()
        differing = int((np.frombuffer(fleet, np.uint8) != np.frombuffer(union, np.uint8)).sum())
    count = len(watches)
    return Trained(
        name=type(nano.head).__name__,
        before=None if learns_sums else score(nano, [shipped] * count, watches, features),
        local=score(nano, local, watches, features),
        federated=score(nano, [fleet] * count, watches, features),
        rounds=rounds,
        head_bytes=len(fleet),
        differing_from_union=differing,
    )


def federate(
    nano: tn.NanoModule, devices: list[tn.Device], watches: list[Watch], *, rounds: int
) -> tuple[bytes, list[float]]:
    """The head that Flower aggregates, and the watches' accuracy after each round."""
    strategy = HeadAveraging(nano, min_available_nodes=len(devices))
    grid = LocalGrid([node(device, watch) for device, watch in zip(devices, watches, strict=True)])
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=rounds)
    right = [float(str(metrics["accuracy"])) for metrics in result.evaluate_metrics_clientapp.values()]
    return head_state(result.arrays), right


def node(connected: tn.Device, watch: Watch) -> ClientApp:
    """The Flower client app of one watch."""

    def learn(device: tn.Device, context: Context) -> int:
        if device.info.ring_capacity:
            # Its ring still holds the windows that it learnt from alone.
            device.train(EPOCHS // ROUNDS)
        else:
            device.fit(watch.own, watch.labels)
        return len(watch.labels)

    def evaluate(device: tn.Device, context: Context) -> tuple[int, dict[str, float]]:
        predicted = [device.predict(window).label for window in watch.scored]
        return len(predicted), {"accuracy": accuracy(predicted, watch.expected)}

    return client_app(lambda context: nullcontext(connected), learn, evaluate)


def score(nano: tn.NanoModule, states: list[bytes], watches: list[Watch], features: list[Tensor]) -> Score:
    """Scores each watch's head on its own scored windows and on those of the others."""
    head = tn.heads.head_of(nano.image)
    own: list[float] = []
    others: list[float] = []
    for index, state in enumerate(states):
        head.load(state)
        right = [
            (head.predict(own_features).numpy() == watch.expected)
            for own_features, watch in zip(features, watches, strict=True)
        ]
        own.append(float(right.pop(index).mean()))
        others.append(float(np.concatenate(right).mean()))
    return Score(float(np.mean(own)), float(np.mean(others)))


def print_result(result: list[Trained], console: Console) -> None:
    """Prints a table of the results."""
    table = Table("Ten watches", *(trained.name for trained in result))
    names = {"own": "own", "others": "the nine others'"}
    stages: dict[str, list[Score | None]] = {
        "as shipped": [trained.before for trained in result],
        "each has learnt alone": [trained.local for trained in result],
        "the fleet's head": [trained.federated for trained in result],
    }
    for whose in names:
        for when, scores in stages.items():
            cells = [f"{getattr(score, whose):.1%}" if score else "-" for score in scores]
            table.add_row(f"{names[whose]} windows: {when}", *cells)
    table.add_row("bytes of a head", *(str(trained.head_bytes) for trained in result))
    differing = [trained.differing_from_union for trained in result]
    table.add_row("bytes unlike one that learnt all", *("-" if n is None else str(n) for n in differing))
    console.print(table)
    for trained in result:
        rounds = ", ".join(f"{right:.1%}" for right in trained.rounds)
        console.print(f"{trained.name}: right on the watches after each round: {rounds}")


def main() -> int:
    """Runs the example and prints it; 0 if merged heads equal those of the union, byte for byte."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    result = run()
    print_result(result, Console())
    return int(any(trained.differing_from_union for trained in result))


if __name__ == "__main__":
    sys.exit(main())
