"""The watch demo's arms, learnt by a board on its own: from samples and presses of a button, without a PC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch_nano as tn
import watch
from torch import Tensor
from training import IntArray, accuracy

#: Windows without a label after which a training begins, and those that have none.
PAUSE, QUIET = 3, 8


@dataclass(frozen=True)
class Alone:
    """What a board on its own has learnt of an arm; its replay on this computer had the same bytes."""

    #: Accuracy on the arm's scored windows, after it learnt.
    personal: float
    #: The head's state at the end.
    state: bytes
    #: Windows that were predicted, and compared with the replay.
    windows: int


def sensor_of(
    x: Tensor, windows: watch.Windows, order: IntArray, labelled: int, options: tn.device.SensingOptions
) -> tn.device.RecordedSensor:
    """The samples of the windows `order` of x [N, 6, 100] without their overlaps; a button is pressed at the
    end of each of the first `labelled` ones.
    """
    parts, gaps, ends = list[Tensor](), list[int](), list[int]()
    count = 0
    for before, index in zip([None, *order[:-1]], order, strict=True):
        follows = before is not None and (windows.series[index], windows.position[index]) == (
            windows.series[before],
            windows.position[before] + 1,
        )
        if not follows:
            gaps.append(count)
        part = x[index].T[-watch.HOP if follows else 0 :]
        parts.append(part)
        count += len(part)
        ends.append(count - 1)
    classes: Sequence[int] = windows.exercise[order[:labelled]].tolist()
    presses = dict(zip(ends, classes, strict=False))
    return tn.device.RecordedSensor(torch.cat(parts).numpy(), presses, gaps=gaps, options=options)


def learn_alone(
    image: bytes, x: Tensor, windows: watch.Windows, subject: int, arm: int, *, epochs: int
) -> Alone:
    """Lets an emulated board sense an arm's windows: those to learn from with a press each, some without, in
    which it trains, then those that are scored; and repeats that here.

    Raises:
        ReplayDifference: the replay has other bytes.
        RuntimeError: windows were not sensed, or samples were missed.
    """
    parts = watch.personal_split(windows, subject, arm)
    order = np.concatenate([parts.train, parts.train[:QUIET], parts.test])
    options = tn.device.SensingOptions(hop=watch.HOP, epochs=epochs, pause=PAUSE)
    sensor = sensor_of(x, windows, order, len(parts.train), options)
    with tn.Device(tn.device.QemuBoard(image, sensor=sensor)) as device:
        reports = list(device.watch())
        state = device.head_state()
    sensed = np.array([report.details["class"] for report in reports if report.event == "sensed"], np.int64)
    missed = sum(report.details["samples"] for report in reports if report.event == "missed")
    if len(sensed) != len(order) or missed:
        raise RuntimeError(f"{len(sensed)} of {len(order)} windows sensed, {missed} samples missed")
    replayed = tn.device.replay_sensing(reports, sensor, image)
    if replayed.head is None or replayed.head.state() != state:
        raise RuntimeError("the replay ends with another head than the board")
    scored = windows.exercise[parts.test]
    return Alone(accuracy(sensed[-len(scored) :], scored), state, replayed.windows)
