"""The samples that a device takes with its own sensor, as a PC gets them."""

from __future__ import annotations

import numpy as np
import pytest
import torch_nano as tn
from torch_nano.device import RecordedSensor, SensingOptions

from .test_sensing import CHANNELS, make_nano

STEPS = 5


def test_a_pc_reads_the_samples_in_the_sensors_own_units_and_asks_in_between() -> None:
    # More numbers than one frame holds.
    samples = np.random.default_rng(0).standard_normal((30_000, STEPS * CHANNELS)).astype(np.float32)
    options = SensingOptions(hop=2, period=200_000)
    sensor = RecordedSensor(samples, gaps=range(0, 30_000, 7), options=options)
    with tn.Device(tn.device.QemuBoard(make_nano(tn.heads.SGD(0.05)).image, sensor=sensor)) as device:
        read = []
        for sample in device.read_sensor():
            read.append(sample)
            if len(read) % 100 == 0:
                assert device.stats().runs > 0
            if len(read) == 500:
                break
        later = [sample for sample, _ in zip(device.read_sensor(), range(3), strict=False)]
        reports = device.stats().requests
    first = read[0].number
    assert [sample.number for sample in read] == list(range(first, first + 500))
    assert later[0].number > read[-1].number and reports > 0
    for sample in [*read, *later]:
        assert np.array_equal(sample.values, samples[sample.number])
        assert sample.after_gap == (sample.number % 7 == 0)


def test_the_samples_end_with_the_recording() -> None:
    samples = np.ones((20_000, CHANNELS))
    sensor = RecordedSensor(samples, options=SensingOptions(period=200_000))
    with tn.Device(tn.device.QemuBoard(make_nano(None).image, sensor=sensor)) as device:
        last = -1
        for sample in device.read_sensor():
            last = sample.number
        assert last == len(samples) - 1
        assert list(device.read_sensor()) == []


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_device_without_a_sensor_is_told_apart(connection: str) -> None:
    with tn.Device(connection, nano=make_nano(tn.heads.SGD(0.05))) as device:
        with pytest.raises(tn.errors.DeviceError, match=r"the device has no sensor: .* just flash"):
            next(device.read_sensor())
        device.reset()
