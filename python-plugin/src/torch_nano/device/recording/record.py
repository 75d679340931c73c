"""Records a device's learning: appends each step to a file, for replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ... import _native
from ...arguments import integer, path_of, shown
from ...errors import InputError, RecordError
from ...files.writing import AppendedFile
from ..client import Device
from ..link import is_unanswered
from .records import (
    Done,
    Refused,
    Start,
    Step,
    outcome_line,
    restart_line,
    start_line,
    step_line,
)


class Recording:
    """A record in progress; a context manager that ends it. See :func:`record`."""

    def __init__(self, device: Device, path: str | Path, check_every: int) -> None:
        self._every = integer("check_every", check_every, 1)
        self._device = device
        self._path = file = path_of("path", path)
        self._number = 0
        self._step: Step | None = None
        self._undoable = False
        # A restart is written before the next step, when the device can send its head.
        self._restarted = self._unknown_samples = False
        with device._turn.lock:
            self._begin(file)
            device.observers.append(self)

    def _begin(self, file: Path) -> None:
        info, device = self._device.info, self._device
        if not info.head_length:
            raise RecordError(f"{info.name!r}, the model on the device, has no head to record")
        if info.has_states:
            raise RecordError(
                f"{info.name!r}, the model on the device, has states, which every run changes and no record "
                "holds; record a model without states"
            )
        if info.ring_capacity and device.samples != 0:
            raise RecordError(
                "the device may keep samples from before, which the record has not. Forget them first: "
                "state = device.head_state(); device.reset(); device.write_head(state)"
            )
        start = Start(info.model_id, info.name, info.ring_capacity, device.head_state())
        try:
            self._file = AppendedFile(file, start_line(start).encode())
        except FileExistsError as error:
            raise RecordError(f"{file} is there already; a record is never overwritten") from error
        except OSError as error:
            raise RecordError(f"{file} cannot be made: {error.strerror}") from error

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return self._number

    def before(self, request: str, fields: dict[str, Any]) -> None:
        """Writes the request that is about to be sent.

        Raises:
            RecordError: it would undo, or train on, something that is not in the record; or the file cannot
                be written. The request is then not sent.
        """
        if request == "update":
            raise RecordError("a record is of one model: close it before the device gets another one")
        self._write_restart()
        if self._unknown_samples and request != "reset":
            raise RecordError(
                "another client has talked to the device, which may keep samples that the record has not: "
                "device.reset(), or end the record"
            )
        if request == "undo" and not self._undoable:
            raise RecordError("what undo would take back is not in the record; undo before the record begins")
        step = Step(self._number + 1, request, fields)
        self._write(step_line(step))
        self._number, self._step = step.number, step

    def after(self, request: str, answer: dict[str, Any] | None, error: Exception | None) -> None:
        """Writes the outcome.

        Raises:
            RecordError: the file cannot be written; the record then lacks the step's outcome.
        """
        assert self._step is not None
        if error is not None and is_unanswered(error):
            return
        self._write(outcome_line(replace(self._step, outcome=self._outcome(request, answer, error))))

    def restarted(self) -> None:
        """The device has restarted, or another client has used it."""
        self._restarted, self._undoable = True, False
        self._unknown_samples = self._device.info.ring_capacity > 0 and self._device.samples != 0

    def _write_restart(self) -> None:
        if self._restarted:
            self._write(restart_line(self._device.head_state()))
            self._restarted = False

    def _outcome(
        self, request: str, answer: dict[str, Any] | None, error: Exception | None
    ) -> Done | Refused:
        if answer is None:
            return Refused(str(error))
        self._undoable = not self._unknown_samples
        self._unknown_samples = False
        checked = self._number % self._every == 0
        state = self._device.head_state() if checked or request == "load" else b""
        return Done(
            samples=answer["samples"] if request == "learn" else None,
            steps=answer["steps"] if request == "train" else None,
            head_crc32=_native.crc32(state) if checked else None,
            head=state if request == "load" else None,
        )

    def close(self) -> None:
        """Ends the record; the device goes on. May be called twice.

        Raises:
            DeviceError: the device has restarted since the last step, and its head cannot be read: the record
                ends before that.
        """
        with self._device._turn.lock:
            if self in self._device.observers:
                self._device.observers.remove(self)
            if not self._file.closed:
                with self._file:
                    self._write_restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        try:
            self._file.append(line.encode())
        except OSError as error:
            reason = f"{self._path} cannot be written ({error.strerror})"
            raise RecordError(f"{reason}: make that possible, or close the record") from error


def record(device: Device, path: str | Path, *, check_every: int = 1) -> Recording:
    """Appends each step that changes the device's head to a new file, until it is closed.

    Ctrl-C waits for the answer to the current step; a second one does not, and leaves its outcome unknown.
    Only requests through `device` are recorded, not those of other clients; :func:`replay` detects them.

    Args:
        path: the file, which must not exist yet; :mod:`torch_nano.device.recording.records` describes it.
        check_every: number of steps after which the head is read back from the device, again and again, so
            that a replay can locate a difference. More than 1 saves time on slow lines and with large heads.

    Raises:
        RecordError: the file exists or cannot be made, there is no head, or the device keeps older samples.
        InputError: `check_every` is not a number of steps, or `path` not a path.

    >>> import tempfile, torch, torch_nano as tn
    >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)), torch.randn(9, 4)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD())
    >>> path = tempfile.mkdtemp() + "/device.record"
    >>> with tn.Device("sim", nano=nano) as device, tn.device.record(device, path):
    ...     _ = device.fit(x, torch.arange(9) % 3, epochs=2)
    ...     state = device.head_state()
    >>> replay = tn.device.replay(path, nano)
    >>> replay
    Replay(steps=10, checks=10, outcome_unknown=False, cut=False)
    >>> replay.head.state() == state
    True
    """
    if not isinstance(device, Device):
        raise InputError(f"the device is {shown(device)}; expected a torch_nano.Device")
    return Recording(device, path, check_every)
