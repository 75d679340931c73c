"""The samples of a sensor: of the device's own, or of a recording that is played in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch_nano import Device
from torch_nano.errors import DeviceError, InputError
from torch_nano.series.series_file import read_series


@dataclass(frozen=True)
class SensorSample:
    """One sample."""

    #: Sample periods since the first one; a number left out is a sample that was lost.
    number: int
    #: float32 [numbers], in the sensor's own units.
    values: NDArray[np.float32]
    #: Whether it does not follow the one before it.
    starts: bool
    #: What a recording says that it is; "" if that is not known.
    label: str = ""


def samples_of(
    device: Device, replay: Path | None, rate: float, *, repeat: bool = False
) -> Iterator[SensorSample]:
    """The samples as they come: of a recording, or of the device's own sensor if that is None.

    Args:
        rate: samples a second of a recording.
        repeat: whether a recording begins again after its end.

    Raises:
        InputError: the rate is not positive.
        FileFormatError: the recording is no time-series file.
        DeviceError: the device has no sensor, or is gone.
    """
    if not rate > 0:
        raise InputError(f"the rate is {rate:g}; expected samples a second, more than 0")
    return _own(device) if replay is None else _replayed(replay, rate, repeat)


def _replayed(file: Path, rate: float, repeat: bool) -> Iterator[SensorSample]:
    series = read_series(file)
    start, number = time.monotonic(), 0
    while True:
        for values, starts, label in zip(series.values, series.starts, series.labels, strict=True):
            time.sleep(max(start + number / rate - time.monotonic(), 0))
            yield SensorSample(number, values, bool(starts), label)
            number += 1
        if not repeat:
            return


def _own(device: Device) -> Iterator[SensorSample]:
    first, expected = None, 0
    try:
        for sample in device.read_sensor():
            if first is None:
                first = expected = sample.number
            starts = sample.after_gap or sample.number != expected or sample.number == first
            yield SensorSample(sample.number - first, sample.values, starts)
            expected = sample.number + 1
    except DeviceError as error:
        if error.failure != "NoRun":
            raise
        raise DeviceError(f"{error}; or play a recording as its sensor: --replay FILE", "NoRun") from error
