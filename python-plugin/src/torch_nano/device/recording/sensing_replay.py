"""Replays what a device did by itself, to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ... import _native
from ...arguments import HasImage, image_of, integer, shown
from ...errors import InputError
from ...heads import Head, head_of
from ..report import Report
from ..transport.recorded_sensor import RecordedSensor, require_fit
from .replay import ReplayDifference

#: Bytes of an erased flash: those of the emulated board.
_FLASH = 1 << 20


@dataclass(frozen=True)
class SensingReplay:
    """The result of a replay without a difference."""

    #: The head at the end, a separate module; None for a model without one.
    head: Head | None = field(repr=False)
    #: Windows and heads that were compared.
    windows: int
    heads: int
    #: The flash at the end, with which the device starts again.
    flash: bytes = field(repr=False)
    #: The flash with the save that was due at the end; `flash` if none was. A device reports a change before
    #: it saves it: cut off between the two, or before it could report the save, it starts with one of these.
    flash_when_saved: bytes = field(repr=False)


def replay_sensing(
    reports: Iterable[Report],
    sensor: RecordedSensor,
    nano: HasImage | bytes,
    *,
    flash: bytes | None = None,
    ring: int = 1024,
) -> SensingReplay:
    """Repeats what a device reported since its start, and compares predictions, decisions and heads.

    Args:
        reports: all of them, from "started" on, as :meth:`torch_nano.Device.watch` gives them.
        sensor: the samples that the device took, with its options. Its presses are not used: the labels are
            those of the reports.
        nano: the model, or its image; its head does not change.
        flash: the flash with which the device started; None: erased.
        ring: the number of samples that the device keeps (`ring_capacity` of its `DeviceInfo`).

    Raises:
        ReplayDifference: the device did something else; its `step` is the number of the report.
        InputError: the sensor does not fit the model; reports are missing, or of samples that are not there.
        FileFormatError: `nano` is not a model.
    """
    image = image_of(nano)
    if not isinstance(sensor, RecordedSensor):
        raise InputError(f"sensor is {shown(sensor)}; expected a RecordedSensor")
    if not isinstance(reports, Iterable):
        raise InputError(f"reports is {shown(reports)}; expected all that Device.watch() yielded")
    erased = b"\xff" * _FLASH if flash is None else flash
    require_fit(sensor, image)
    twin = _native.SensingTwin(image, sensor.encoded, erased, ring=integer("ring", ring, 1))
    replayer = _Replayer(twin, len(sensor))
    number = -1
    for number, report in enumerate(reports):
        if not isinstance(report, Report):
            raise InputError(
                f"report {number} is {shown(report)}; expected a Report, as Device.watch() yields"
            )
        if report.number != number or (number == 0) != (report.event == "started"):
            raise InputError(
                f"report {number} is missing: expected all reports of a device from its start on, found "
                f"{report.number} ({report.event})"
            )
        replayer.do(report)
    if number < 0:
        raise InputError("there are no reports: expected all of a device from its start on")
    state, now = twin.head(), twin.flash()
    if twin.save_is_due():
        twin.save()
    head = None
    if state:
        head = head_of(image)
        head.load(state)
    return SensingReplay(head, replayer.windows, replayer.heads, now, twin.flash())


class _Replayer:
    """Does what reports say, with a twin."""

    def __init__(self, twin: _native.SensingTwin, samples: int) -> None:
        self._twin, self._samples = twin, samples
        #: Samples taken or left out.
        self._taken = 0
        #: Whether a gap was reported, of which the sample is not taken yet.
        self._gap = False
        self._last_equal = 0
        self.windows = self.heads = 0

    def do(self, report: Report) -> None:
        """Repeats one report, and compares."""
        # What is missed may end after the recording: the clock goes on.
        begins = report.samples - (report.details["samples"] if report.event == "missed" else 0)
        if begins > max(self._samples, self._taken):
            raise InputError(f"{report} of sample {report.samples}; the recorded sensor has {self._samples}")
        try:
            self._repeat(report)
        except _native.NanoError as error:
            self._differ(report, f"its twin refuses: {error}")
        if "head" in report.details:
            own = _native.crc32(self._twin.head()) if self._twin.head() else 0
            if own != report.details["head"]:
                self._differ(report, f"the heads differ: CRC-32 {report.details['head']:08x}, here {own:08x}")
            self.heads += 1
            self._last_equal = report.number

    def _repeat(self, report: Report) -> None:
        details, samples = report.details, report.samples
        if self._twin.save_is_due() and report.event not in ("saved", "save_failed"):
            self._differ(report, "its twin saves its head before that")
        match report.event:
            case "started":
                self._compare(report, "restored", self._twin.restored())
            case "sensed":
                self._take_until(samples - 1, report)
                made = self._take(report)
                if made is None:
                    self._differ(report, "its twin senses no window there")
                for name in ("class", "confidence", "margin", "known", "decided"):
                    self._compare(report, name, made[name])
                self.windows += 1
            case "learned":
                self._take_until(samples, report)
                self._twin.label(details["target"])
            case "trained":
                self._take_until(samples, report)
                self._compare(report, "left", self._twin.work(details["steps"]))
            case "committed":
                self._take_until(samples, report)
                self._twin.work()
            case "saved":
                self._twin.save()
                self._compare(report, "saves", self._twin.saves())
            case "missed":
                self._take_until(samples - details["samples"], report)
                self._leave_out(details["samples"])
            case "sensor_failed":
                self._take_until(samples - 1, report)
                self._leave_out(1)
            case "gap":
                self._take_until(samples - 1, report)
                self._gap = True
            case "save_failed":
                self._differ(report, "its flash failed, which no replay can repeat")

    def _take_until(self, samples: int, report: Report) -> None:
        """Takes samples up to this number, of which no window is due."""
        while self._taken < samples:
            if self._take(report) is not None:
                self._differ(
                    report, f"its twin senses a window at sample {self._taken} that was not reported"
                )

    def _take(self, report: Report) -> Mapping[str, Any] | None:
        gap, made = self._twin.sense()
        self._taken += 1
        if gap != self._gap:
            there = "a gap" if gap else "no gap"
            self._differ(report, f"the recorded sensor has {there} before sample {self._taken}")
        self._gap = False
        return made

    def _leave_out(self, samples: int) -> None:
        self._twin.skip(samples)
        self._taken += samples

    def _compare(self, report: Report, name: str, own: object) -> None:
        if report.details[name] != own:
            self._differ(report, f"{name} is {own!r} here")

    def _differ(self, report: Report, how: str) -> NoReturn:
        raise ReplayDifference(
            f"report {report.number}, {report}: {how}. The heads were equal up to report {self._last_equal}; "
            "a PC that changes the head in between, or another model, flash or recording, makes a difference",
            step=report.number,
            last_equal_step=self._last_equal,
            head=self._twin.head(),
        )
