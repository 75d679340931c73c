"""Fitting a device to data sets: rings that are too small, labels of every kind, progress."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch_nano as tn
from rich.console import Console
from torch_nano import Device
from torch_nano.device import SimulatedBoard
from torch_nano.device.bars import Bars
from torch_nano.errors import LabelError

from .test_transports import make, model_and_data


def test_data_that_do_not_fit_the_ring_travel_once_per_epoch() -> None:
    _, x, y = model_and_data()
    # The rate is halved with each epoch over the data, which each ring is part of.
    nano = make(tn.heads.SGD(0.05, halve_every=1))
    with Device(SimulatedBoard(nano.image, ring=16), nano=nano) as device:
        result = device.fit(x, y, epochs=3)
        # 120 samples in rings of 16: the last one is filled from the start.
        assert (result.sent, result.epochs) == (128, 3)
        head = tn.heads.head_of(nano.image)
        assert isinstance(head, tn.heads.SgdHead)
        features = nano.features_int8(x)
        order = np.arange(128) % 40
        for start in range(0, 128, 16):
            part = torch.from_numpy(order[start : start + 16])
            head.fit(features[part], y[part], 1, first_epoch=start // 40)
        assert device.head_state() == head.state()
        assert device.stats().steps == 128
        device.reset()
        assert device.fit(x[:16], y[:16], epochs=3).sent == 16
        head.reset()
        head.fit(features[:16], y[:16], 3)
        assert device.head_state() == head.state()


def test_fit_learns_several_right_classes() -> None:
    _, x, _ = model_and_data()
    nano = make(tn.heads.SGD(0.05, loss="binary"))
    right = torch.rand(40, 4, generator=torch.Generator().manual_seed(3)) > 0.5
    with Device("sim", nano=nano) as device:
        device.fit(x, right, epochs=4)
        nano.head.fit(nano.features_int8(x), right, 4)
        assert device.head_state() == nano.head.state()
        device.learn(x[0], [True, False, True, True])
        device.learn(x[0], right[0].numpy())
        prediction = device.predict(x[0])
        assert prediction.confidence is None and prediction.known
        state = device.head_state()
        for wrong in (2, "run", 0.5, True, [True, False, True], [1, 0, 1, 1], None):
            with pytest.raises(LabelError, match=r"learns from all right classes \(loss 'binary'\), a list"):
                device.learn(x[0], wrong)
        with pytest.raises(LabelError, match="the label is 3; this head learns from all right classes"):
            device.fit(x, torch.arange(40).flip(0) % 4)
        assert device.head_state() == state


def test_fit_learns_a_number() -> None:
    model, x, _ = model_and_data()
    model[-1] = torch.nn.Linear(8, 1)
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.01, loss="squared"))
    numbers = torch.linspace(-1, 1, 40)
    with Device("sim", nano=nano) as device:
        device.fit(x, numbers, epochs=4)
        nano.head.fit(nano.features_int8(x), numbers, 4)
        assert device.head_state() == nano.head.state()
        device.learn(x[0], 0.25)
        for wrong in (float("inf"), float("nan"), 1e7, 0, True, "run", [True]):
            with pytest.raises(LabelError, match=r"learns from a number \(loss 'squared'\), a finite float"):
                device.learn(x[0], wrong)
        with pytest.raises(LabelError, match="the label is 0; this head learns from a number"):
            device.fit(x, torch.arange(40))


def test_long_requests_show_a_bar_and_only_where_wanted() -> None:
    _, x, y = model_and_data()
    nano = make(tn.heads.SGD())

    def shown(wanted: bool) -> str:
        output = io.StringIO()
        with Device(SimulatedBoard(nano.image, frame=64), nano=nano) as device:
            device._progress = Bars(wanted, Console(file=output, force_terminal=True, width=80))
            device.fit(x, y, epochs=1)
            device.write_head(device.head_state())
        return output.getvalue()

    told = shown(True)
    assert "fit" in told and "40/40" in told
    assert "head" in told and "80/80" in told
    assert shown(False) == ""
    # Nobody watches a test.
    assert not Bars(None, Console(file=io.StringIO())).shown


def test_predictions_of_several_right_classes_and_of_numbers() -> None:
    model, x, _ = model_and_data()
    nano = make(tn.heads.SGD(0.05, loss="binary"))
    with Device("sim", nano=nano) as device:
        assert device.info.target == "labels"
        features = nano.features_int8(x)
        for sample, right in zip(x, nano.head.predict(features), strict=True):
            prediction = device.predict(sample)
            assert prediction.right == tuple(np.flatnonzero(right.numpy()))
            assert prediction.value is None
    model[-1] = torch.nn.Linear(8, 1)
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(0.01, loss="squared"))
    with Device("sim", nano=nano) as device:
        assert device.info.target == "value"
        numbers = nano.head.predict(nano.features_int8(x))
        # The same integer by the same scale, one product in float32 and one in float64.
        found = [device.predict(sample).value for sample in x]
        assert found == pytest.approx(numbers.tolist(), rel=1e-6)
