"""The file format of records: a device's learning, step by step. :func:`torch_nano.device.record` writes it.

The file is text, a JSON object per line, in UTF-8. Bytes are in base64.

- The first line is the start: `{"torch_nano_record": 4, "model_id", "name", "ring_capacity", "head"}`, where
  4 is the version of the format and `head` the state of the head.
- Before a request is sent, its line is written: `{"step": 1, "request": "learn", "input", "target"}`. Steps
  count from 1. The other fields are those of the request: of learn the input as sent, which is the bytes of
  all inputs of the model, one after the other, and the target as the head takes it (a class, bits of the
  right classes, or 1/4096); `epochs` and `first_epoch` of train; `name` of add_class; `class_index` of
  forget; `state` of replace_head.
- The line after it has the outcome: `{"step": 1, "done": true}`, for learn with `samples`, for train with
  `steps` (the number taken: fewer than all if it was stopped), for load with `head`, the state from flash,
  and after every n-th step (`check_every` of :func:`torch_nano.device.record`) with the head's `head_crc32`.
  Or `{"step": 1, "refused": reason}`. A request of unknown outcome has no such line. If that is train, the
  next train has the outcome of the same training, unless the record ends or the device restarts before.
- `{"restarted": true, "head"}`: before the next request the device had restarted, with this head and without
  samples. The effect of an earlier request of unknown outcome is then lost.

A record is of one model: it must be closed before :meth:`torch_nano.Device.update`.

Each line is on the disk before the next one is written, so that after a crash of the PC the file lacks at
most the outcome of the last request. An incomplete last line is left by such a crash: it is not read, and a
replay reports it (`cut`). A line that does not fit a full disk is removed, and the step is not executed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...arguments import LARGEST, shown
from ...errors import RecordError
from ...files.reading import parse_json, read_file

#: Version of the format; raised whenever an older reader would misread it.
VERSION = 4
_FORMAT = "torch_nano_record"


@dataclass(frozen=True)
class Start:
    """The start of a record."""

    model_id: int
    name: str
    ring_capacity: int
    head: bytes


@dataclass(frozen=True)
class Done:
    """A request was executed."""

    #: Samples that the device keeps after a request "learn".
    samples: int | None = None
    #: Steps that a request "train" took.
    steps: int | None = None
    #: CRC-32 of the head; None if it was not read.
    head_crc32: int | None = None
    #: The head that a request "load" found in flash.
    head: bytes | None = None


@dataclass(frozen=True)
class Refused:
    """A request was refused, and changed nothing."""

    reason: str


@dataclass(frozen=True)
class Step:
    """A request that changes what a device has learnt."""

    #: From 1.
    number: int
    request: str
    #: Its fields, by name.
    fields: dict[str, Any]
    #: Its outcome; None if unknown.
    outcome: Done | Refused | None = None

    def __str__(self) -> str:
        plain = {name: value for name, value in self.fields.items() if not isinstance(value, bytes)}
        return f"step {self.number} ({', '.join([self.request, *(f'{n} {v}' for n, v in plain.items())])})"


@dataclass(frozen=True)
class Restart:
    """A restart of the device."""

    head: bytes
    #: Of the file, from 1.
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _Kind:
    """A kind of value, with its conversions to JSON and back."""

    expected: str
    encode: Callable[[Any], Any]
    #: Raises ValueError or TypeError for an invalid value.
    decode: Callable[[Any], Any]


def _integers(least: int, largest: int) -> _Kind:
    def checked(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= largest:
            raise ValueError
        return value

    return _Kind(f"an integer from {least} to {largest}", int, checked)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_NUMBER = _integers(0, LARGEST)
_STEPS = _integers(0, (1 << 64) - 1)
_TARGET = _integers(-(1 << 31), LARGEST)
_TEXT = _Kind("a text", str, _text)
_BYTES = _Kind(
    "bytes in base64",
    lambda value: base64.b64encode(value).decode(),
    lambda value: base64.b64decode(_text(value), validate=True),
)
_START = {"model_id": _NUMBER, "name": _TEXT, "ring_capacity": _NUMBER, "head": _BYTES}
#: The fields of each request.
_REQUESTS: dict[str, dict[str, _Kind]] = {
    "learn": {"input": _BYTES, "target": _TARGET},
    "train": {"epochs": _NUMBER, "first_epoch": _NUMBER},
    "commit": {},
    "undo": {},
    "add_class": {"name": _TEXT},
    "forget": {"class_index": _NUMBER},
    "reset": {},
    "replace_head": {"state": _BYTES},
    "load": {},
}
#: The fields of an executed request's outcome, besides `head_crc32`.
_DONE: dict[str, dict[str, _Kind]] = {
    "learn": {"samples": _NUMBER},
    "train": {"steps": _STEPS},
    "load": {"head": _BYTES},
}


def start_line(start: Start) -> str:
    """The first line of a record."""
    return _line({_FORMAT: VERSION}, vars(start), _START)


def step_line(step: Step) -> str:
    """The line of a request that is about to be sent."""
    return _line({"step": step.number, "request": step.request}, step.fields, _REQUESTS[step.request])


def outcome_line(step: Step) -> str:
    """The line of a request's outcome."""
    match step.outcome:
        case Done() as done:
            kinds = dict(_DONE.get(step.request, {}))
            if done.head_crc32 is not None:
                kinds["head_crc32"] = _NUMBER
            return _line({"step": step.number, "done": True}, vars(done), kinds)
        case Refused(reason):
            return _line({"step": step.number}, {"refused": reason}, {"refused": _TEXT})
        case None:
            raise ValueError(f"{step} has no outcome")


def restart_line(head: bytes) -> str:
    """The line of a device's restart."""
    return _line({"restarted": True}, {"head": head}, {"head": _BYTES})


def read_record(path: Path) -> tuple[Start, list[Step | Restart], bool]:
    """Reads a file; also returns whether it ends in an incomplete line, which is ignored.

    Raises:
        RecordError: it cannot be read, is not a record, is damaged or was changed.
    """
    try:
        data = read_file(path, RecordError)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    # The PC went down while a last line without its end was written.
    *texts, rest = data.split(b"\n")
    lines = [_Line(path, number, text) for number, text in enumerate(texts, 1)]
    if not lines or _FORMAT not in lines[0].values:
        raise RecordError(f"{path} is no record of a device: its first line has no {_FORMAT!r}")
    version = lines[0].values.pop(_FORMAT)
    if version != VERSION or isinstance(version, bool):
        raise RecordError(
            f"{path} is of version {shown(version)}; this package reads {VERSION}. Replay it with the "
            "torch-nano that made it"
        )
    start = Start(**lines[0].take(_START))
    events: list[Step | Restart] = []
    number, following = 0, iter(range(1, len(lines)))
    for index in following:
        line = lines[index]
        if "restarted" in line.values:
            line.require("restarted", True)
            events.append(Restart(**line.take({"head": _BYTES}), line=index + 1))
            continue
        number += 1
        step = _step(line, number)
        if index + 1 < len(lines) and lines[index + 1].values.keys() & {"done", "refused"}:
            next(following)
            step = Step(number, step.request, step.fields, _outcome(lines[index + 1], step))
        events.append(step)
    return start, events, bool(rest)


def _step(line: _Line, number: int) -> Step:
    request = line.values.pop("request", None)
    if not isinstance(request, str) or request not in _REQUESTS:
        raise line.error(f"request is {shown(request)}", f"one of {', '.join(_REQUESTS)}")
    line.require("step", number)
    return Step(number, request, line.take(_REQUESTS[request]))


def _outcome(line: _Line, step: Step) -> Done | Refused:
    line.require("step", step.number)
    if "refused" in line.values:
        return Refused(line.take({"refused": _TEXT})["refused"])
    line.require("done", True)
    checked = {"head_crc32": _NUMBER} if "head_crc32" in line.values else {}
    return Done(**line.take({**_DONE.get(step.request, {}), **checked}))


class _Line:
    """A line of a file; its fields are taken one by one."""

    def __init__(self, path: Path, number: int, text: bytes) -> None:
        self._place = f"{path}, line {number}"
        try:
            self.values = parse_json(text, RecordError, "it is no JSON")
        except RecordError as error:
            raise self.error(str(error), "an object of JSON") from error
        if not isinstance(self.values, dict):
            raise self.error(f"it is {shown(self.values)}", "an object of JSON")

    def error(self, given: str, expected: str) -> RecordError:
        return RecordError(
            f"{self._place}: {given}; expected {expected}. The record is damaged or was changed"
        )

    def require(self, name: str, wanted: int | bool) -> None:
        """Takes a field that has one right value."""
        value = self.values.pop(name, None)
        if value != wanted or type(value) is not type(wanted):
            raise self.error(f"{name} is {shown(value)}", json.dumps(wanted))

    def take(self, kinds: dict[str, _Kind]) -> dict[str, Any]:
        """Takes all remaining fields, which must be exactly these."""
        taken = {}
        for name, kind in kinds.items():
            if name not in self.values:
                raise self.error(f"there is no {name!r}", kind.expected)
            value = self.values.pop(name)
            try:
                taken[name] = kind.decode(value)
            except (TypeError, ValueError) as error:
                raise self.error(f"{name} is {shown(value)}", kind.expected) from error
        if self.values:
            raise self.error(f"there is {next(iter(self.values))!r}", "no such field here")
        return taken


def _line(first: dict[str, Any], values: dict[str, Any], kinds: dict[str, _Kind]) -> str:
    return json.dumps({**first, **{name: kind.encode(values[name]) for name, kind in kinds.items()}}) + "\n"
