"""The record of what a device learnt: a file to which each step is appended, to be repeated from it.

The file is text, a JSON object per line, in UTF-8. Bytes are in base64.

- The first line is the start: `{"torch_nano_record": 2, "model_id", "name", "ring_capacity", "head"}`, where
  2 is the version of the format and `head` the state of the head.
- Before a request is sent, its line is written: `{"step": 1, "request": "learn", "input", "kind", "target"}`.
  Steps count from 1. The other fields are those of the request: of learn the input as sent and its target
  (a class for kind "label", bits for "bits", 1/4096 for "value"); `epochs` and
  `first_epoch` of train; `name` of add_class;
  `class_index` of forget; `state` of replace_head.
- After it, how it went: `{"step": 1, "done": true}`, with `samples` of learn, with `head_crc32` of the head
  after every so-many-eth step, and after `load` with `head`, the state of the head that was in flash. Or
  `{"step": 1, "refused": reason}`. A request whose outcome is not known has no such line.
- Or `{"step": 1, "restarted": true, "executed", "head"}`: the device had started anew before it; `head` is
  the state after it, whether it was then `executed` or not.

Lines are written to the disk one by one, so that after a crash of the PC the file tells all but the outcome
of the last request. A last line without its end is what such a crash leaves, and is not read.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import _native
from ..errors import TorchNanoError
from .client import Device
from .errors import DeviceRestarted
from .link import is_unanswered

#: Version of the format; raised whenever an older reader would misread it.
VERSION = 2
#: The key of the first line that holds the version.
FORMAT = "torch_nano_record"


class RecordError(TorchNanoError):
    """A record cannot be made, or a file is none of this version and model."""


class Recording:
    """A record that is being made; a context manager that ends it. See :func:`record`."""

    def __init__(self, device: Device, path: str | Path, check_every: int) -> None:
        if check_every < 1:
            raise RecordError(f"check_every is {check_every}; expected 1 (a check after each step) or more")
        self._device, self._every = device, check_every
        self._step = 0
        info = device.info
        if not info.head_length:
            raise RecordError(f"{info.name!r}, the model on the device, has no head to record")
        if info.ring_capacity and device.samples != 0:
            raise RecordError(
                "the device may keep samples from before, which the record has not. Forget them first: "
                "state = device.head_state(); device.reset(); device.write_head(state)"
            )
        start = {
            **{FORMAT: VERSION, "model_id": info.model_id, "name": info.name},
            **{"ring_capacity": info.ring_capacity, "head": encoded(device.head_state())},
        }
        try:
            self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115, closed by close
        except FileExistsError as error:
            raise RecordError(f"{os.fspath(path)} is there already; a record is never overwritten") from error
        self._write(start)
        device.observers.append(self)

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return self._step

    def before(self, request: str, fields: dict[str, Any]) -> None:
        """Writes what is about to be asked.

        Raises:
            RecordError: it would take back what the record does not have.
        """
        if request == "undo" and self._step == 0:
            raise RecordError("what undo would take back is not in the record; undo before the record begins")
        self._step += 1
        values = {
            name: encoded(value) if isinstance(value, bytes) else value for name, value in fields.items()
        }
        self._write({"step": self._step, "request": request, **values})

    def restarted(self) -> None:
        """The request that is told of it, is written by :meth:`after`."""

    def after(self, request: str, answer: dict[str, Any] | None, error: Exception | None) -> None:
        """Writes how it went."""
        if isinstance(error, DeviceRestarted):
            head = encoded(self._device.head_state())
            self._write({"step": self._step, "restarted": True, "executed": False, "head": head})
            return
        if error is not None:
            if not is_unanswered(error):
                self._write({"step": self._step, "refused": str(error)})
            return
        assert answer is not None
        line: dict[str, Any] = {"step": self._step, "done": True}
        if request == "learn":
            line["samples"] = answer["samples"]
        checked = self._step % self._every == 0
        state = self._device.head_state() if checked or request == "load" else b""
        if checked:
            line["head_crc32"] = _native.crc32(state)
        if request == "load":
            line["head"] = encoded(state)
        self._write(line)

    def close(self) -> None:
        """Ends the record; the device goes on. Closing it twice is no error."""
        if self in self._device.observers:
            self._device.observers.remove(self)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def record(device: Device, path: str | Path, *, check_every: int = 1) -> Recording:
    """Appends each step that changes the device's head to a new file, until it is closed.

    It records what goes through `device`. What another client asks it does not see; :func:`replay` finds it.

    Args:
        path: the file, which must not be there yet; :mod:`torch_nano.device.recording` describes it.
        check_every: after every so-many-eth step the head is read back from the device, so that a replay can
            say where a difference begins. On slow lines and with large heads, more than 1 saves time.

    Raises:
        RecordError: the file is there, there is no head, or the device keeps samples from before.

    >>> import tempfile, torch, torch_nano as tn
    >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)), torch.randn(9, 4)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD())
    >>> path = tempfile.mkdtemp() + "/device.record"
    >>> with tn.Device("sim", nano=nano) as device, tn.record(device, path):
    ...     _ = device.fit(x, torch.arange(9) % 3, epochs=2)
    ...     state = device.head_state()
    >>> replay = tn.replay(path, nano)
    >>> replay
    Replay(steps=10, checks=10, outcome_unknown=False)
    >>> replay.head.state() == state
    True
    """
    return Recording(device, path, check_every)


def encoded(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode()
