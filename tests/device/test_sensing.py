"""The emulated board that senses and learns by itself, with a recorded sensor, against its replay here."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch_nano as tn
from torch import nn
from torch_nano.device import RecordedSensor, Report, SensingOptions, replay_sensing

SEED = 3
CHANNELS, LENGTH, CLASSES = 3, 20, 4
Samples = npt.NDArray[np.float32]
#: Trainings take many samples' time, so that predictions fall between their slices.
OPTIONS = SensingOptions(
    hop=5, smoothing=(5, 3), epochs=60, pause=4, slice=1 << 9, period=200_000, rejection=0.3
)
HEADS = [
    tn.heads.SGD(0.05),
    tn.heads.SGD(0.05, guard=4),
    tn.heads.LDA(capacity=CLASSES),
    tn.heads.Prototype(),
]


def make_nano(head: tn.heads.SGD | tn.heads.LDA | tn.heads.Prototype | None) -> tn.NanoModule:
    torch.manual_seed(SEED)
    model = nn.Sequential(
        *(nn.Conv1d(CHANNELS, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(8, CLASSES),
    )
    x = torch.randn(64, CHANNELS, LENGTH)
    if head is None:
        return tn.to_nano(model, x, calibrate=x, check=False)
    tn.freeze(model, "0")
    return tn.to_nano(model, x, calibrate=x, head=head, check=False, labels=list("abcd"))


def recorded(seed: int, count: int, *, options: SensingOptions = OPTIONS) -> RecordedSensor:
    """Random movements that depend on a class, which is pressed in bursts."""
    random = np.random.default_rng([SEED, seed])
    classes = np.repeat(random.integers(0, CLASSES, count // 50 + 1), 50)[:count]
    samples = random.standard_normal((count, CHANNELS)) * (1 + classes[:, None] / 2)
    presses = {
        int(n): int(classes[n])
        for n in np.flatnonzero(random.random(count) < 0.05)
        if n // 400 % 2 == 0 and n > LENGTH
    }
    return RecordedSensor(
        samples, presses, gaps=np.flatnonzero(random.random(count) < 1 / 300).tolist(), options=options
    )


def run(nano: tn.NanoModule, sensor: RecordedSensor, flash: Path | None = None) -> tuple[list[Report], bytes]:
    """All reports of a board, and its head's state at the end."""
    with tn.Device(tn.device.QemuBoard(nano.image, sensor=sensor, flash=flash)) as device:
        reports = list(device.watch())
        return reports, device.head_state() if device.info.classes else b""


def kinds(reports: list[Report]) -> set[str]:
    return {report.event for report in reports}


@pytest.mark.parametrize("head", [*HEADS, None], ids=["sgd", "guarded", "lda", "prototype", "no head"])
def test_the_replay_has_the_bytes_of_a_board_that_was_on_its_own(
    head: tn.heads.SGD | tn.heads.LDA | tn.heads.Prototype | None, tmp_path: Path
) -> None:
    nano, sensor, flash = make_nano(head), recorded(1, 3000), tmp_path / "flash"
    reports, state = run(nano, sensor, flash)
    bank = flash.read_bytes()[: 1 << 20]
    result = replay_sensing(reports, sensor, nano, flash=b"\xff" * len(bank))
    assert result.windows > 300
    assert result.flash == bank
    if head is None:
        assert result.head is None and kinds(reports) >= {"started", "sensed", "refused", "gap", "ended"}
        return
    assert result.head is not None and result.head.state() == state
    in_epochs = isinstance(head, tn.heads.SGD)
    assert kinds(reports) >= {"started", "sensed", "learned", "saved", "gap", "ended"}
    assert ("trained" if in_epochs else "committed") in kinds(reports)
    heads = {report.details["head"] for report in reports if "head" in report.details}
    assert len(heads) > 5, "hardly anything is learnt"
    decided = {report.details["decided"] for report in reports if report.event == "sensed"}
    assert None in decided and len(decided) > 2
    if in_epochs and head.guard:
        judged = [report.details["taken_back"] for report in reports if report.event == "trained"]
        assert True in judged and False in judged
    if in_epochs:
        unfinished = [report for report in reports if report.event == "trained" and report.details["left"]]
        assert len(unfinished) > 10, "no window falls between slices"


def test_the_same_recording_gives_the_same_reports() -> None:
    nano, sensor = make_nano(tn.heads.SGD(0.05)), recorded(2, 1500)
    with (
        tn.device.QemuBoard(nano.image, sensor=sensor) as board,
        tn.device.QemuBoard(nano.image, sensor=sensor) as other,
    ):
        sent = [b"", b""]
        for number, stream in enumerate((board, other)):
            while b"ended" not in kinds_of(sent[number]):
                sent[number] += stream.read(1 << 16)
    assert sent[0] == sent[1]


def kinds_of(sent: bytes) -> set[bytes]:
    """The events in the whole frames sent."""
    frames = [tn._native.decode_response(frame) for frame in sent.split(b"\0")[:-1] if frame]
    return {frame["event"].encode() for frame in frames if frame["kind"] == "report"}


def test_samples_that_are_due_while_the_board_is_busy_are_missed_and_counted() -> None:
    nano = make_nano(tn.heads.SGD(0.05))
    sensor = recorded(3, 2000, options=replace(OPTIONS, period=9_000, slice=1 << 12))
    reports, _ = run(nano, sensor)
    missed = sum(report.details["samples"] for report in reports if report.event == "missed")
    assert 0 < missed < 2000
    assert abs(reports[-1].samples - 2000) <= max(
        report.details["samples"] for report in reports if report.event == "missed"
    )
    result = replay_sensing([report for report in reports if report.samples <= 2000], sensor, nano)
    assert result.windows > 50


def test_a_pc_labels_predicts_and_saves_while_the_board_senses() -> None:
    nano = make_nano(tn.heads.SGD(0.05))
    sensor = replace(recorded(4, 40_000), presses={})
    x = torch.randn(8, CHANNELS, LENGTH)
    inputs = nano.device_inputs(x)
    expected = nano.features_int8(x).numpy()
    with tn.Device(tn.device.QemuBoard(nano.image, sensor=sensor)) as device:
        labelled, refused = 0, 0
        # A slow PC reaches the end of the recording, after which no window comes.
        while labelled < 20 and refused < 100:
            try:
                device.label("abcd"[labelled % CLASSES])
                labelled, refused = labelled + 1, 0
            except tn.errors.DeviceError as error:
                assert error.failure == "NoRun"  # no window since the latest label
                refused += 1
            made = device.predict(inputs[labelled % 8])
            assert made.output.tobytes() == expected[labelled % 8].tobytes()
        device.save()
        reports = list(device.watch())
        state = device.head_state()
        with pytest.raises(tn.errors.LabelError, match="no class is called 'e'"):
            device.label("e")
    assert [report.details["target"] for report in reports if report.event == "learned"] == [
        number % CLASSES for number in range(labelled)
    ]
    assert labelled > 4
    result = replay_sensing(reports, sensor, nano)
    assert result.head is not None and result.head.state() == state


def test_requests_in_parts_succeed_while_the_board_predicts_in_between() -> None:
    torch.manual_seed(SEED)
    # Input and output take two frames each.
    model = nn.Sequential(nn.Conv1d(CHANNELS, 4, 1), nn.ReLU())
    x = torch.randn(4, CHANNELS, 2000)
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    random = np.random.default_rng(SEED)
    sensor = RecordedSensor(
        random.standard_normal((300_000, CHANNELS)), options=SensingOptions(hop=2000, period=100_000)
    )
    inputs = nano.device_inputs(x)
    with tn.Device(tn.device.QemuBoard(nano.image)) as quiet:
        expected = [quiet.predict(input).output.tobytes() for input in inputs]
    with tn.Device(tn.device.QemuBoard(nano.image, sensor=sensor)) as device:
        assert min(device.info.input_length, device.info.output_length) > device.info.frame_length
        before = device.stats().refused_requests
        for round in range(60):
            assert device.predict(inputs[round % 4]).output.tobytes() == expected[round % 4]
            assert device.features(inputs[round % 4]).tobytes() == expected[round % 4]
        refused = {entry.answer for entry in device.log} - {"prediction", "features", "received", "part"}
        stats = device.stats()
    assert stats.refused_requests > before, "the board was never in between: nothing is tested"
    assert len(refused) > 1, refused


def make_stream() -> tn.results.Stream:
    torch.manual_seed(SEED)
    model = nn.Sequential(
        nn.Conv1d(CHANNELS, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )
    x = torch.randn(64, CHANNELS, LENGTH)
    tn.freeze(model, "0")
    return tn.to_nano(model, x, calibrate=x, check=False).stream()


def test_a_stream_senses_step_by_step() -> None:
    stream = make_stream()
    nano, step = stream.nano, stream.step_length
    sensor = recorded(5, 1200, options=replace(OPTIONS, hop=step))
    sensor = replace(sensor, gaps=())
    with tn.device.QemuBoard(nano.image, sensor=sensor) as board:
        sent = b""
        while b"ended" not in kinds_of(sent):
            sent += board.read(1 << 16)
    frames = [tn._native.decode_response(frame) for frame in sent.split(b"\0")[:-1] if frame]
    reports = [Report.of(frame) for frame in frames]
    result = replay_sensing(reports, sensor, nano)
    # A save takes longer than a step: the sample that was due meanwhile is missed.
    missed = sum(report.details["samples"] for report in reports if report.event == "missed")
    assert step == 1 and result.windows == 1200 - missed and missed < 12 and result.heads > 5
    # Before anything is learnt these are the stream's own predictions.
    first = [report for report in reports if report.event == "sensed"][: 20 // step]
    samples = torch.from_numpy(np.asarray(sensor.samples)).T
    for number, report in enumerate(first):
        logits = stream.step(samples[:, number * step : (number + 1) * step])
        assert report.details["class"] == int(logits.argmax())


def test_a_pc_that_connects_does_not_interrupt_a_stream() -> None:
    nano = make_stream().nano
    random = np.random.default_rng(SEED)
    sensor = RecordedSensor(random.standard_normal((3000, CHANNELS)), options=SensingOptions(period=400_000))
    with tn.Device(tn.device.QemuBoard(nano.image, sensor=sensor)) as device:
        assert device.info.has_states
        watched = device.watch()
        reports = [next(watched) for _ in range(1000)]
        for _ in range(10):
            device._link.begin()  # as another client
            reports += [next(watched) for _ in range(100)]
        assert reports[-1].event != "ended", "no session began while it sensed"
        reports += watched
    assert replay_sensing(reports, sensor, nano).windows > 2900


def test_a_difference_is_found_and_named() -> None:
    nano, sensor = make_nano(tn.heads.SGD(0.05)), recorded(6, 1500)
    reports, _ = run(nano, sensor)
    sensed = next(n for n, report in enumerate(reports) if report.event == "sensed" and n > 100)
    trained = next(n for n, report in enumerate(reports) if report.event == "trained")
    learned = next(n for n, report in enumerate(reports) if report.event == "learned")
    for number, name, value in (
        (sensed, "confidence", reports[sensed].details["confidence"] ^ 1),
        (trained, "steps", reports[trained].details["steps"] + 1),
        (trained, "head", 5),
        (learned, "target", (reports[learned].details["target"] + 1) % CLASSES),
    ):
        wrong = list(reports)
        wrong[number] = replace(reports[number], details={**reports[number].details, name: value})
        with pytest.raises(tn.device.ReplayDifference) as raised:
            replay_sensing(wrong, sensor, nano)
        # A wrong target shows when the head is trained.
        assert raised.value.step == (trained if name == "target" else number)
        assert raised.value.last_equal_step < raised.value.step
    with pytest.raises(tn.errors.InputError, match="report 7 is missing"):
        replay_sensing(reports[:7] + reports[8:], sensor, nano)
    with pytest.raises(tn.errors.InputError, match="report 0 is missing"):
        replay_sensing(reports[1:], sensor, nano)
    shorter = RecordedSensor(np.asarray(sensor.samples)[:500], options=OPTIONS)
    with pytest.raises(tn.errors.InputError, match="the recorded sensor has 500"):
        replay_sensing(reports, replace(shorter, gaps=[g for g in sensor.gaps if g < 500]), nano)


def test_a_board_that_cannot_sense_says_why() -> None:
    nano = make_nano(None)
    expected = "the model's input has 60 numbers, 3 per step; expected 3 numbers per sample"
    # Two numbers divide the input, but no sample of three channels.
    for numbers in (7, 2, 18):
        wrong = RecordedSensor(np.zeros((10, numbers)), options=OPTIONS)
        said = f"the sensor has {numbers} numbers per sample and hop is 5: {expected}"
        with pytest.raises(tn.errors.InputError, match=said):
            tn.device.QemuBoard(nano.image, sensor=wrong)
        with pytest.raises(tn.errors.InputError, match=said):
            replay_sensing([], wrong, nano)
    stream = make_stream().nano
    for numbers, hop in ((3, 5), (1, 3)):
        wrong = RecordedSensor(np.zeros((10, numbers)), options=SensingOptions(hop=hop))
        with pytest.raises(
            tn.errors.InputError, match=f"hop is {hop}: .* 3 numbers, 3 per step; .* step of a stream"
        ):
            tn.device.QemuBoard(stream.image, sensor=wrong)
    with pytest.raises(tn.errors.FileFormatError):
        tn.device.QemuBoard(b"no image", sensor=wrong)
    with pytest.raises(tn.errors.InputError, match="expected a RecordedSensor"):
        tn.device.QemuBoard(nano.image, sensor=np.zeros((3, 3)))  # type: ignore[arg-type]
    large = RecordedSensor(np.zeros((3 << 19, 3)), options=OPTIONS)
    with pytest.raises(tn.errors.BoardError, match="image and recorded sensor have"):
        tn.device.QemuBoard(nano.image, sensor=large)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": np.zeros(3)}, r"shape \(3,\); expected \[samples, numbers\]"),
        ({"samples": [["a"]]}, "expected numbers"),
        ({"presses": {9: 0}}, "a press is of sample 9; there are 4"),
        ({"presses": {0: 40_000}}, "the class of a press is 40000, too large"),
        ({"presses": {0: 99_999}}, "the class of a press is 99999, too large"),
        ({"presses": [1]}, r"presses is \[1\]; expected a class by the number"),
        ({"gaps": 3}, "gaps is 3; expected the numbers of samples"),
        ({"samples": np.zeros((4, 2), np.complex64)}, "expected numbers"),
        ({"options": None}, "options is None; expected a SensingOptions"),
        ({"gaps": [-1]}, "the sample of a gap is -1"),
        ({"options": SensingOptions(hop=0)}, "hop is 0"),
        ({"options": SensingOptions(smoothing=(3, 4))}, "agreement"),
        ({"options": SensingOptions(smoothing=2)}, "smoothing is 2"),  # type: ignore[arg-type]
        ({"options": SensingOptions(rejection=2.0)}, "rejection is 2.0"),
    ],
)
def test_what_cannot_be_recorded_is_refused(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"samples": np.zeros((4, 2)), **arguments}
    with pytest.raises(tn.errors.InputError, match=message):
        RecordedSensor(**given)  # type: ignore[arg-type]


def test_a_device_that_does_not_sense_reports_nothing() -> None:
    nano = make_nano(tn.heads.SGD(0.05))
    board = tn.device.QemuBoard(nano.image)
    with tn.Device(board) as device:
        board.timeout = 0.3
        with pytest.raises(tn.errors.DeviceTimeout, match="reported nothing"):
            next(device.watch())
        board.timeout = 60
        with pytest.raises(
            tn.errors.DeviceError, match=r"refused the request 'label'.* must have seen a window"
        ):
            device.label(0)


def test_closing_ends_the_watching() -> None:
    nano = make_nano(tn.heads.SGD(0.05))
    device = tn.Device(tn.device.QemuBoard(nano.image))
    threading.Timer(0.2, device.close).start()
    with pytest.raises(tn.errors.ConnectionLost):
        next(device.watch())


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "there are no reports"),
        (None, "reports is None; expected all"),
        (["started"], "report 0 is 'started'; expected a Report"),
    ],
)
def test_a_replay_of_no_reports_is_refused(reports: object, message: str) -> None:
    nano, sensor = make_nano(None), RecordedSensor(np.zeros((10, 6)))
    with pytest.raises(tn.errors.InputError, match=message):
        replay_sensing(reports, sensor, nano)  # type: ignore[arg-type]
    with pytest.raises(tn.errors.InputError, match="expected a RecordedSensor"):
        replay_sensing([], np.zeros((10, 6)), nano)  # type: ignore[arg-type]


def test_a_run_that_misses_the_end_of_its_recording_is_replayed() -> None:
    nano = make_nano(tn.heads.SGD())
    sensor = recorded(0, 1000, options=replace(OPTIONS, period=1))
    reports, head = run(nano, sensor)
    assert reports[-1].event == "ended" and reports[-1].samples > len(sensor), reports[-1]
    replayed = replay_sensing(reports, sensor, nano)
    assert replayed.head is not None and replayed.head.state() == head
