"""One suite for all transports: every request of a client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano import Device, NanoModule
from torch_nano.errors import DeviceError, HeadError, InputError, LabelError

from .boards import Board, serial_board, socket_board

LABELS = ["walk", "run", "rest", "jump"]
TRANSPORTS = ["sim", "qemu", "socket", "serial"]


def model_and_data() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 12, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    )
    y = torch.arange(40) % 4
    x = torch.randn(40, 2, 3, 4, generator=generator) + y[:, None, None, None]
    return model, x, y


def make(head: tn.heads.HeadSettings) -> NanoModule:
    model, x, _ = model_and_data()
    return tn.to_nano(model, x, calibrate=x, labels=LABELS, name="moves", head=head)


@pytest.fixture(scope="module", params=["sgd", "lda", "prototype", "layers"])
def nano(request: pytest.FixtureRequest) -> NanoModule:
    """A model with each trainer; tests reset its head."""
    heads = {
        "sgd": tn.heads.SGD(0.05),
        "lda": tn.heads.LDA(capacity=6),
        "prototype": tn.heads.Prototype(capacity=6),
    }
    if request.param == "layers":
        model, x, _ = model_and_data()
        return tn.to_nano(model, x, calibrate=x, labels=LABELS, name="moves", train_last=2)
    return make(heads[request.param])


@pytest.fixture(scope="module", params=TRANSPORTS)
def device(request: pytest.FixtureRequest, nano: NanoModule) -> Iterator[Device]:
    """A device at each kind of connection; tests reset it."""
    with ExitStack() as stack:
        connection: str = request.param
        if connection == "socket":
            connection = stack.enter_context(socket_board(Board(nano.image)))
        elif connection == "serial":
            connection = stack.enter_context(serial_board(Board(nano.image)))
        yield stack.enter_context(Device(connection, nano=nano))


@pytest.fixture
def fresh(device: Device, nano: NanoModule) -> Device:
    assert nano.head is not None
    device.reset()
    device.configure(rejection=0, save_interval=0)
    nano.head.reset()
    return device


def learnt(nano: NanoModule, x: Tensor, y: Tensor, epochs: int) -> bytes:
    """The state of the twin that has learnt the same."""
    head = tn.heads.head_of(nano.image)
    features = nano.features_int8(x)
    if isinstance(head, tn.heads.SgdHead):
        head.fit(features, y, epochs)
    else:
        assert isinstance(head, tn.heads.LdaHead | tn.heads.PrototypeHead)
        head.fit(features, y)
    return head.state()


def test_info_describes_the_device(fresh: Device, nano: NanoModule) -> None:
    info = fresh.info
    assert (info.model_id, info.name, info.input_length) == (nano.id, "moves", 24)
    assert (info.classes, info.output_length) == (4, nano.head.features)
    assert info.layers == len(nano.summary().layers) == len(fresh.profile(model_and_data()[1][0]))
    assert info.head_length == len(fresh.head_state()) == len(nano.head.state())
    assert info.class_capacity == nano.head.capacity
    assert (info.ring_capacity > 0) == isinstance(nano.head, tn.heads.SgdHead)
    assert fresh.labels == tuple(LABELS)


def test_a_fitted_head_is_the_twins(fresh: Device, nano: NanoModule) -> None:
    _, x, y = model_and_data()
    result = fresh.fit(x, y, epochs=5)
    assert result.sent == 40 and result.seconds > 0
    assert result.epochs == (5 if isinstance(nano.head, tn.heads.SgdHead) else 0)
    assert fresh.head_state() == learnt(nano, x, y, 5)
    assert fresh.head() is nano.head
    assert nano.head.state() == fresh.head_state()
    logits = nano.forward_int8(nano.quantize_input(x))
    features = nano.features_int8(x)
    for sample in range(0, 40, 7):
        prediction = fresh.predict(x[sample])
        assert prediction.logits.tolist() == logits[sample].tolist()
        assert prediction.output.tolist() == features[sample].tolist()
        assert fresh.features(x[sample]).tolist() == features[sample].tolist()
        assert prediction.name == LABELS[prediction.label]
        assert prediction.label == int(logits[sample].argmax())
        assert prediction.confidence is not None and prediction.known
        real = torch.softmax(nano.head(features[sample : sample + 1])[0], 0).max()
        # The device's exponentials are looked up in steps of 2^(1/256), and rounded in Q15.
        assert prediction.confidence == pytest.approx(float(real), abs=0.01)
        assert 0.25 <= prediction.confidence <= 1


def test_an_input_may_be_of_any_kind(fresh: Device, nano: NanoModule) -> None:
    _, x, _ = model_and_data()
    expected = fresh.predict(x[3]).output.tobytes()
    int8 = nano.quantize_input(x[3:4])[0]
    in_order = nano.device_inputs(x[3:4])[0]
    for input in (
        x[3].numpy(),
        x[3].double(),
        int8,
        in_order,
        torch.from_numpy(in_order),
        in_order.reshape(3, 4, 2),
        int8.numpy().transpose(1, 2, 0),
        x[3].tolist(),
    ):
        assert fresh.predict(input).output.tobytes() == expected


def test_samples_may_come_in_any_container(fresh: Device, nano: NanoModule) -> None:
    _, x, y = model_and_data()
    expected = learnt(nano, x, y, 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    names = [LABELS[label] for label in y]
    int8 = nano.device_inputs(x)
    for data, labels in (
        (loader, None),
        (zip(x, y, strict=True), None),
        ([(x[:8], y[:8]), (x[8:].numpy(), y[8:].numpy())], None),
        (x, names),
        (int8, y.numpy()),
        (list(zip(int8, names, strict=True)), None),
    ):
        fresh.reset()
        fresh.fit(data, labels, epochs=2)
        assert fresh.head_state() == expected


def test_undo_takes_back_one_step(fresh: Device) -> None:
    _, x, y = model_and_data()
    fresh.fit(x, y, epochs=2)
    before = fresh.head_state()
    fresh.reset()
    fresh.undo()
    assert fresh.head_state() == before
    with pytest.raises(DeviceError, match="there is nothing to take back"):
        fresh.undo()


def test_a_head_is_written_and_read_back(fresh: Device, nano: NanoModule) -> None:
    _, x, y = model_and_data()
    wanted = learnt(nano, x, y, 3)
    before = fresh.head_state()
    assert wanted != before
    fresh.write_head(wanted)
    assert fresh.head_state() == wanted
    fresh.undo()
    assert fresh.head_state() == before
    nano.head.load(wanted)
    fresh.write_head(nano.head)
    assert fresh.head_state() == wanted
    for wrong in (b"", wanted[1:], wanted + b"\0"):
        with pytest.raises(HeadError, match=f"the head has {len(wrong)} bytes; that of the model"):
            fresh.write_head(wrong)
    assert fresh.head_state() == wanted


def test_a_head_is_saved_and_loaded(fresh: Device) -> None:
    _, x, y = model_and_data()
    fresh.fit(x, y, epochs=2)
    saved = fresh.head_state()
    count = fresh.save()
    assert fresh.info.saved == count
    assert fresh.save() == count + 1
    fresh.reset()
    assert fresh.head_state() != saved
    assert fresh.load() == count + 1
    assert fresh.head_state() == saved


def test_classes_are_added_and_forgotten_where_the_trainer_can(fresh: Device, nano: NanoModule) -> None:
    _, x, y = model_and_data()
    fresh.fit(x, y, epochs=1)
    if isinstance(nano.head, tn.heads.SgdHead):
        for act in (lambda: fresh.add_class("swim"), lambda: fresh.forget("run")):
            with pytest.raises(DeviceError, match="the trainer of this model's head cannot do this"):
                act()
        return
    assert fresh.add_class("swim") == 4
    assert (fresh.info.classes, fresh.labels) == (5, (*LABELS, "swim"))
    fresh.fit(x[:4] + 10, ["swim"] * 4)
    prediction = fresh.predict(x[0] + 10)
    assert (prediction.label, prediction.name) == (4, "swim")
    head = fresh.head()
    assert head.classes == 5 and head.state() == fresh.head_state()
    with pytest.raises(DeviceError, match="there is a class of this name already"):
        fresh.add_class("run")
    with pytest.raises(DeviceError, match=r"a class has a name of 1 to 16 bytes"):
        fresh.add_class("x" * 17)
    before = fresh.head_state()
    fresh.forget("swim")
    fresh.commit()
    assert fresh.predict(x[0] + 10).label != 4
    fresh.add_class("ski")
    with pytest.raises(DeviceError, match="there is room for 6, and no more"):
        fresh.add_class("row")
    assert fresh.head_state() != before


def test_predictions_below_the_threshold_are_of_no_known_class(fresh: Device) -> None:
    _, x, y = model_and_data()
    fresh.fit(x, y, epochs=3)
    confidences = [fresh.predict(sample).confidence for sample in x]
    threshold = float(np.median(confidences))
    settings = fresh.configure(rejection=threshold)
    assert settings == fresh.settings and settings.save_interval == 0
    assert settings.rejection == pytest.approx(threshold, abs=2**-15)
    known = [fresh.predict(sample).known for sample in x]
    assert known == [confidence >= settings.rejection for confidence in confidences]
    assert 0 < sum(known) < len(known)
    fresh.configure(save_interval=7)
    assert (fresh.settings.rejection, fresh.settings.save_interval) == (settings.rejection, 7)
    with pytest.raises(ValueError, match=r"rejection is 1\.5; expected a probability, 0 to 1"):
        fresh.configure(rejection=1.5)
    with pytest.raises(ValueError, match="save_interval is -1"):
        fresh.configure(save_interval=-1)


def test_it_counts_and_the_client_logs(fresh: Device) -> None:
    _, x, _ = model_and_data()
    before = fresh.stats()
    fresh.predict(x[0])
    fresh.learn(x[0], "rest")
    with pytest.raises(DeviceError):
        fresh._ask("forget", "done", class_index=99)
    after = fresh.stats()
    assert after.learned == before.learned + 1
    assert after.runs == before.runs + 2
    assert after.refused_requests == before.refused_requests + 1
    assert after.repeated == 0
    entries = [entry for entry in fresh.log if entry.request != "class_name"][-4:]
    assert [(entry.request, entry.sent) for entry in entries] == [
        ("predict", 1),
        ("learn", 1),
        ("forget", 1),
        ("stats", 1),
    ]
    assert entries[1].answer == "learned" and entries[1].seconds > 0
    assert "not" in entries[2].answer or "cannot" in entries[2].answer


def test_wrong_inputs_and_labels_are_refused_before_anything_is_learnt(
    fresh: Device, nano: NanoModule
) -> None:
    _, x, y = model_and_data()
    before, samples = fresh.head_state(), fresh.stats().learned
    for input, message in (
        (x[0, :1], r"shape \[1, 3, 4\] and dtype torch.float32; expected \[2, 3, 4\] of floats or int8"),
        (x[:2], r"shape \[2, 2, 3, 4\]"),
        (x[0].int(), r"dtype torch.int32; expected floats, or the device's int8"),
        (np.zeros(23, np.int8), r"shape \[23\]; expected int8 24 elements"),
        (torch.zeros(4, 3, 2, dtype=torch.int8), r"shape \[4, 3, 2\]"),
        (x[0] * float("nan"), "NaN or infinity"),
        ("walk", "the input is 'walk'; expected a tensor or an array of floats, or of the device's int8"),
    ):
        for act in (fresh.predict, fresh.features, fresh.profile, lambda input: fresh.learn(input, 0)):
            with pytest.raises(InputError, match=message):
                act(input)
    for label, message in (
        ("wolk", r"no class is called 'wolk'; did you mean 'walk'\? Known: walk, run, rest, jump"),
        ("", r"no class is called ''; Known: walk"),
        (4, "there is no class 4; expected 0 to 3"),
        (-1, "there is no class -1"),
        (True, "the label is True; this head learns from one right class, its index .* or its name"),
        ([True, False, False, True], r"the label is \[True, .*; this head learns from one right class"),
        (0.5, "the label is 0.5; this head learns from one right class"),
        (float("nan"), "the label is nan; this head learns from one right class"),
        (None, "the label is None; this head learns from one right class"),
    ):
        with pytest.raises(LabelError, match=message):
            fresh.learn(x[0], label)
    for data, labels, message in (
        (x, y[:-1], "there are 40 inputs and 39 labels; expected one label for each"),
        (x, 3, "there are 40 inputs and the label 3"),
        (x[0], y[:1], "shape"),
        (x, None, r"the data give a Tensor; expected pairs \(inputs, labels\)"),
        ([], None, "there is no sample to learn from"),
    ):
        with pytest.raises(InputError, match=message):
            fresh.fit(data, labels)
    with pytest.raises(LabelError, match="there is no class 9"):
        fresh.fit(x, [*y[:-1].tolist(), 9])
    with pytest.raises(LabelError, match=r"the label is 0\.5; this head learns from one right class"):
        fresh.fit(x[:3], [0, 1, 0.5])
    with pytest.raises(LabelError, match=r"the label is 0\.0; this head learns from one right class"):
        fresh.fit(x, y.float())
    with pytest.raises(InputError, match="epochs is 0; expected a whole number, 1 to"):
        fresh.fit(x, y, epochs=0)
    assert (fresh.head_state(), fresh.stats().learned) == (before, samples)


def test_a_device_started_again_has_what_it_saved(nano: NanoModule, tmp_path: Path) -> None:
    _, x, y = model_and_data()
    for connection in ("sim", "qemu"):
        flash = tmp_path / connection
        with Device(connection, nano=nano, flash=flash) as device:
            device.fit(x, y, epochs=1)
            saved = device.head_state()
            device.save()
            device.fit(x, y.flip(0), epochs=3)
            assert device.head_state() != saved
            assert device.reconnect()
            assert device.info.restored and device.head_state() == saved
            device.reset()
        with Device(connection, nano=nano.image, flash=flash) as device:
            assert device.head_state() == saved
            assert np.array_equal(device.predict(x[0]).output, nano.features_int8(x[:1])[0])
            assert device.head().state() == saved
