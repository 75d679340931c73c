"""Wrong arguments raise an error of this package with given and expected values, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from files_at_risk import small_files
from images import with_head
from torch_nano import Device
from torch_nano.device import QemuBoard, SimulatedBoard
from torch_nano.errors import (
    BoardError,
    ConnectionFailed,
    DeviceError,
    FileFormatError,
    HeadError,
    InputError,
    LabelError,
    RecordError,
)

from .test_transports import make, model_and_data

IMAGE = with_head()
LDA = with_head(settings=tn.heads.LDA(capacity=6))
INPUT = np.random.default_rng(0).integers(-128, 128, 216, np.int8)


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (lambda d: d.train(-1), InputError, "epochs is -1; expected a whole number, 0 to 1000000"),
        (lambda d: d.train(1 << 32), InputError, "epochs is 4294967296; expected a whole number"),
        (
            lambda d: d.train(1_000_001),
            InputError,
            "epochs is 1000001; expected a whole number, 0 to 1000000",
        ),
        (
            lambda d: d.train(400_000, first_epoch=600_001),
            InputError,
            "first_epoch is 600001; expected a whole number, 0 to 600000",
        ),
        (lambda d: d.train(1.5), InputError, "epochs is 1.5; expected a whole number"),
        (lambda d: d.train(True), InputError, "epochs is True; expected a whole number"),
        (lambda d: d.train(1, first_epoch="2"), InputError, "first_epoch is '2'; expected a whole number"),
        (
            lambda d: d.fit(INPUT[None], [0], epochs="2"),
            InputError,
            "epochs is '2'; expected a whole number, 1 to",
        ),
        (lambda d: d.fit(INPUT[None], [0], epochs=1.5), InputError, "epochs is 1.5"),
        (lambda d: d.fit(5), InputError, "the data are 5; expected inputs and labels, or pairs"),
        (lambda d: d.forget(1.0), LabelError, "the class is 1.0; expected its index or its name"),
        (lambda d: d.forget(None), LabelError, "the class is None; expected its index"),
        (lambda d: d.forget(True), LabelError, "the class is True; expected its index"),
        (lambda d: d.forget(torch.tensor(9)), LabelError, "there is no class 9; expected 0 to 3"),
        (
            lambda d: d.configure(rejection=1.1),
            InputError,
            "rejection is 1.1; expected a probability, 0 to 1",
        ),
        (
            lambda d: d.configure(rejection=float("nan")),
            InputError,
            "rejection is nan; expected a probability",
        ),
        (lambda d: d.configure(rejection="a"), InputError, "rejection is 'a'; expected a probability"),
        (
            lambda d: d.configure(save_interval=1.5),
            InputError,
            "save_interval is 1.5; expected a whole number",
        ),
        (
            lambda d: d.configure(save_interval=1 << 32),
            InputError,
            "expected a whole number, 0 to 4294967295",
        ),
        (lambda d: d.add_class(5), InputError, "name is 5; expected a text"),
        (lambda d: d.add_class("\ud800"), InputError, "surrogates not allowed"),
        (lambda d: d.write_head(None), HeadError, "the head is None; expected a Head such as nano.head"),
        (lambda d: d.write_head("abc"), HeadError, "the head is 'abc'; expected a Head"),
        (
            lambda d: d.write_head(make(tn.heads.SGD())),
            HeadError,
            "; expected a Head such as nano.head",
        ),
        (
            lambda d: d.predict(torch.zeros(216).to_sparse()),
            InputError,
            "the input is a tensor of layout torch.sparse",
        ),
        (
            lambda d: d.predict(torch.zeros(216, device="meta")),
            InputError,
            "the input is a tensor on the meta device",
        ),
        (lambda d: d.predict(object()), InputError, "expected a tensor or an array of floats"),
        (
            lambda d: tn.device.record("sim", "x"),
            InputError,
            "the device is 'sim'; expected a torch_nano.Device",
        ),
        (lambda d: tn.device.record(d, 5), InputError, "path is 5; expected a path"),
        (
            lambda d: tn.device.record(d, "x", check_every=1.5),
            InputError,
            "check_every is 1.5; expected a whole number, 1 to",
        ),
    ],
)
def test_wrong_arguments_of_methods_are_refused(
    act: Callable[[Device], object], kind: type[Exception], message: str
) -> None:
    device = Device("sim", nano=LDA)
    before = (device.head_state(), device.stats().changes)
    sent = len(device.log)
    with pytest.raises(kind) as caught:
        act(device)
    assert type(caught.value) is kind and message in str(caught.value)
    assert [entry.answer for entry in list(device.log)[sent + 2 :]] == []
    assert (device.head_state(), device.stats().changes) == before


def test_integers_of_numpy_and_torch_are_integers() -> None:
    device = Device("sim", nano=LDA)
    for label in (np.int64(1), torch.tensor(1), np.uint8(1)):
        device.learn(INPUT, label)
        device.forget(label)
    assert device.stats().changes >= 3
    ring = Device("sim", nano=IMAGE)
    ring.fit(INPUT[None], torch.tensor([1]), epochs=np.int32(2))
    ring.train(torch.tensor(1))


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (
            lambda: Device("sim", nano="m.nano"),
            InputError,
            "nano is 'm.nano'; expected a NanoModule, or its image",
        ),
        (
            lambda: Device("sim", nano=Path("m.nano")),
            InputError,
            "read the file: tn.load(path), or Path(path)",
        ),
        (
            lambda: Device("sim", nano=torch.nn.Linear(2, 2)),
            InputError,
            "nano is Linear(in_features=2",
        ),
        (lambda: Device("sim", nano=b""), FileFormatError, "the 0 bytes given are no model's image"),
        (
            lambda: Device(make(tn.heads.SGD())),
            ConnectionFailed,
            "; expected a serial port such as",
        ),
        (lambda: Device(None), ConnectionFailed, "the connection is None; expected a serial port"),
        (lambda: Device("sim", nano=IMAGE, timeout=None), InputError, "timeout is None; expected a number"),
        (lambda: Device("sim", nano=IMAGE, timeout="5"), InputError, "timeout is '5'; expected a number"),
        (
            lambda: Device("sim", nano=IMAGE, timeout=float("inf")),
            InputError,
            "timeout is inf; expected a number",
        ),
        (
            lambda: Device("sim", nano=IMAGE, timeout=1e12),
            InputError,
            "expected a number from 0.001 to 1000000",
        ),
        (lambda: Device("sim", nano=IMAGE, timeout=-1), InputError, "timeout is -1; expected a number"),
        (
            lambda: Device("sim", nano=IMAGE, baudrate="fast"),
            InputError,
            "baudrate is 'fast'; expected a whole",
        ),
        (lambda: SimulatedBoard(IMAGE[:-1]), FileFormatError, "bytes given are no model's image"),
        (lambda: SimulatedBoard(IMAGE, ring=0), InputError, "ring is 0; expected a whole number, 1 to"),
        (lambda: SimulatedBoard(IMAGE, frame=0), InputError, "frame is 0; expected a whole number, 1 to"),
        (lambda: SimulatedBoard(IMAGE, ring=1.5), InputError, "ring is 1.5; expected a whole number"),
        (
            lambda: SimulatedBoard(IMAGE, ring=10**9),
            InputError,
            "no device can be simulated with {'ring': 10",
        ),
        (lambda: SimulatedBoard(IMAGE, flash=5), InputError, "flash is 5; expected a path"),
        (lambda: QemuBoard("m.nano"), InputError, "nano is 'm.nano'; expected a NanoModule, or its image"),
        (
            lambda: QemuBoard(IMAGE, timeout=0),
            InputError,
            "timeout is 0; expected a number from 0.001 to 1000000.0",
        ),
        (lambda: tn.device.replay("x", "m.nano"), InputError, "nano is 'm.nano'"),
        (lambda: tn.device.replay("x", b"xx"), FileFormatError, "the 2 bytes given are no model's image"),
        (lambda: tn.device.replay(5, IMAGE), InputError, "path is 5; expected a path"),
        (lambda: tn.device.replay("x", IMAGE), RecordError, "x cannot be read: No such file"),
    ],
)
def test_wrong_arguments_of_a_device_are_refused(
    act: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert type(caught.value) is kind and message in str(caught.value)


def test_an_image_may_be_any_kind_of_bytes() -> None:
    with Device("sim", nano=bytearray(IMAGE)) as device:  # type: ignore[arg-type]
        assert device.predict(INPUT).label >= 0
        device.write_head(bytearray(device.head_state()))  # type: ignore[arg-type]


def test_wrong_flash_files_are_refused(tmp_path: Path) -> None:
    folder, missing = tmp_path, tmp_path / "missing" / "flash"
    for flash, message in (
        (folder, "cannot be read: Is a directory"),
        (missing, "cannot be made: .*missing is no folder"),
    ):
        with pytest.raises(ConnectionFailed, match=message):
            Device("sim", nano=IMAGE, flash=flash)
    for flash, message in ((folder, "Is a directory"), (missing, "cannot be opened or made: No such file")):
        with pytest.raises(BoardError, match=message):
            QemuBoard(IMAGE, flash=flash)


def test_a_flash_file_that_cannot_be_written_is_no_lost_connection(tmp_path: Path) -> None:
    flash = tmp_path / "flash"
    with Device("sim", nano=IMAGE, flash=flash) as device:
        blank = flash.read_bytes()
        told = pytest.raises(DeviceError, match=r"the flash file .*flash cannot be written")
        with small_files(60_000), told as caught:
            device.save()
        assert type(caught.value) is DeviceError
        assert flash.read_bytes() == blank and list(tmp_path.iterdir()) == [flash]
        assert device.save() == 1, "asked again, it is executed once"
        assert flash.read_bytes() != blank


def test_the_head_of_another_model_is_refused() -> None:
    """Also where it has the size of the device's."""
    nano, other = make(tn.heads.SGD(0.05)), make(tn.heads.SGD(0.06))
    assert nano.head is not None and other.head is not None
    assert len(nano.head.state()) == len(other.head.state())
    with Device("sim", nano=nano) as device:
        before = device.head_state()
        with pytest.raises(HeadError, match=f"belongs to model {other.id:08x}; the device runs 'moves'"):
            device.write_head(other.head)
        assert device.head_state() == before
        device.write_head(nano.head)


def test_two_devices_with_one_model_have_a_head_each_where_that_is_wanted() -> None:
    nano = make(tn.heads.LDA(capacity=6))
    _, x, y = model_and_data()
    with Device("sim", nano=nano) as anna, Device("sim", nano=nano) as ben:
        anna.fit(x[:20], y[:20])
        ben.fit(x[20:], y[20:])
        heads: list[Any] = []
        for device in (anna, ben):
            head = tn.heads.head_of(nano.image)
            head.load(device.head_state())
            heads.append(head)
        heads[0].merge(heads[1])
        assert anna.head() is ben.head() is nano.head, "the last one read is what it holds"
        assert nano.head.state() == ben.head_state() == heads[1].state() != heads[0].state()
        with Device("sim", nano=nano.image) as both:
            assert both.head() is not nano.head
