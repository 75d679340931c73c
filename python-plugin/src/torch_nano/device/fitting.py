"""Learning of a whole data set by a device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .bars import Bars
from .fields import epochs_of
from .samples import Input, Samples, batches

if TYPE_CHECKING:
    from .client import Device


@dataclass(frozen=True)
class FitResult:
    """The result of :meth:`torch_nano.Device.fit`."""

    #: Samples sent; data that do not fit the device's ring are sent once per epoch.
    sent: int
    #: Passes over the data; 0 for a head that learns each sample once.
    epochs: int
    #: Instructions or cycles of training or commit.
    ticks: int
    seconds: float
    #: Trainings that the guard has taken back, of one for each part of the data; without a guard 0.
    taken_back: int = 0


def fit(device: Device, data: Input | Samples, labels: Any, epochs: int, progress: Bars) -> FitResult:
    """See :meth:`torch_nano.Device.fit`.

    The data are read before this thread locks the device: the code that makes them may use it, too.
    """
    epochs = epochs_of(epochs, 0, least=1)["epochs"]
    # All are checked before the device learns the first one.
    pairs = batches(data, labels, device.info.inputs, device._nano)
    samples = [(input, device._target(label)) for input, label in pairs]
    if not samples:
        raise InputError("there is no sample to learn from")
    with device._turn.lock:
        return _learn(device, samples, epochs, progress)


def _learn(
    device: Device, samples: list[tuple[bytes, dict[str, Any]]], epochs: int, progress: Bars
) -> FitResult:
    start = time.perf_counter()
    places = device.info.ring_capacity
    parts = -(-len(samples) * epochs // places) if places and len(samples) > places else 1
    sent = places * parts if parts > 1 else len(samples)
    # Whole rings, so that all samples count equally: the last ring is filled up from the first samples.
    stream = chain.from_iterable(repeat(samples))
    ticks = taken_back = 0
    with progress.bar("fit", sent) as advance:
        for part in range(parts):
            for input, target in islice(stream, sent // parts):
                device._learn(input, target)
                advance(1)
            if parts > 1:
                first_epoch = part * places // len(samples)
                trained = device._train(Bars(False), epochs=1, first_epoch=first_epoch)
                ticks, taken_back = ticks + trained["ticks"], taken_back + trained["taken_back"]
    if not places:
        ticks = device.commit()
    elif parts == 1:
        # With a bar of its own.
        trained = device._train(progress, epochs=epochs, first_epoch=0)
        ticks, taken_back = trained["ticks"], int(trained["taken_back"])
    return FitResult(sent, epochs if places else 0, ticks, time.perf_counter() - start, taken_back)
