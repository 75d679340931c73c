"""Replays a record with the head on the PC, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import _native
from ...arguments import HasImage, image_of, path_of
from ...errors import InputError, RecordError, TorchNanoError
from ...heads import Head, head_of
from ..graph_values import inputs_of, split
from .records import Done, Refused, Restart, Start, Step, read_record

#: The largest number of possible states; each request of unknown outcome doubles it.
_MOST_POSSIBILITIES = 256


class ReplayDifference(TorchNanoError):
    """The device's head and its twin's differ."""

    def __init__(self, message: str, *, step: int, last_equal_step: int, head: bytes) -> None:
        super().__init__(message)
        #: The first step after which a check found them different, from 1.
        self.step = step
        #: The last step before that, after which a check found them equal; 0: only at the start.
        self.last_equal_step = last_equal_step
        #: The state of the twin's head after :attr:`step`; before it, if the twin refuses the step.
        self.head = head


@dataclass(frozen=True)
class Replay:
    """The result of a replay without a difference."""

    #: The head at the end, a separate module.
    head: Head = field(repr=False)
    steps: int
    #: Number of steps after which device and twin were compared.
    checks: int
    #: Whether the outcome of a request is unknown; `head` does not include it.
    outcome_unknown: bool
    #: Whether the file ends in an incomplete line, which is ignored: the PC went down while writing it.
    cut: bool = False


@dataclass(frozen=True)
class _State:
    """A possible state of the device."""

    head: bytes
    #: Features and targets in the ring, the oldest first.
    ring: tuple[tuple[bytes, int], ...] = ()
    #: Number of samples that came before the oldest in the ring.
    first: int = 0
    #: Head, ring and that number before the latest change; None if that cannot be undone.
    before: tuple[bytes, tuple[tuple[bytes, int], ...], int] | None = None


def replay(path: str | Path, nano: HasImage | bytes) -> Replay:
    """Replays a record with the head's nn.Module, and compares it with the device's head at each check.

    Args:
        path: the file from :func:`record`.
        nano: the model, or its image; its head does not change.

    Raises:
        ReplayDifference: they differ; its `step` is the first after which a check found that.
        RecordError: the file is not a record, is damaged or was changed, is of another model, or cannot be
            read.
        InputError, FileFormatError: `nano` is not a model.
    """
    file = path_of("path", path)
    image = image_of(nano)
    start, events, cut = read_record(file)
    _require_model(file, start, image)
    twin = _Twin(image, start.ring_capacity)
    possible = [twin.started(start.head, f"{file}, line 1")]
    checks, last_equal = 0, 0
    for event in events:
        if isinstance(event, Restart):
            possible = [twin.started(event.head, f"{file}, line {event.line}")]
            continue
        if isinstance(event.outcome, Refused):
            continue
        if event.outcome is None and event.request == "train":
            # It took an unknown number of steps; the next event of the same training has the total.
            continue
        after, refusal = twin.after(possible, event)
        if event.outcome is None:
            possible += after
            if len(possible) > _MOST_POSSIBILITIES:
                raise RecordError(
                    f"{file}: too many requests up to {event} of which the outcome is not known"
                )
            continue
        if refusal is not None:
            raise ReplayDifference(
                f"the device executed {event}, which its twin refuses: {refusal}",
                step=event.number,
                last_equal_step=last_equal,
                head=possible[0].head,
            ) from refusal
        possible = [state for state in after if _differs(state, event.outcome) is None]
        if not possible:
            equal = f"after step {last_equal}" if last_equal else "at the start"
            raise ReplayDifference(
                f"after {event} {_differs(after[0], event.outcome)}. They agreed {equal}",
                step=event.number,
                last_equal_step=last_equal,
                head=after[0].head,
            )
        if event.outcome.head_crc32 is not None:
            checks, last_equal = checks + 1, event.number
    head = head_of(image)
    head.load(possible[0].head)
    steps = sum(isinstance(event, Step) for event in events)
    return Replay(head, steps, checks, len(possible) > 1 or _ends_in_training(events), cut)


def _ends_in_training(events: list[Step | Restart]) -> bool:
    """Whether the record ends in a training of unknown outcome."""
    last = events[-1] if events else None
    return isinstance(last, Step) and last.request == "train" and last.outcome is None


def _require_model(file: Path, start: Start, model: _native.Model) -> None:
    if start.model_id != model.id:
        raise RecordError(
            f"{file} was made with {start.name!r}, model {start.model_id:08x}; given is {model.name!r}, "
            f"{model.id:08x}"
        )


def _differs(state: _State, outcome: Done) -> str | None:
    """The difference between an outcome from the device and a state; None if they agree."""
    if outcome.samples not in (None, len(state.ring)):
        return f"the device kept {outcome.samples} samples, its twin {len(state.ring)}"
    own = _native.crc32(state.head)
    if outcome.head_crc32 not in (None, own):
        return f"the heads differ: CRC-32 {outcome.head_crc32:08x} on the device, {own:08x} here"
    return None


class _Twin:
    """Executes steps on states, with the head on the PC."""

    def __init__(self, image: _native.Model, ring_capacity: int) -> None:
        self._model = image
        self._inputs = inputs_of(image)
        self._head = head_of(image)._head
        self._places = ring_capacity
        #: Whether the latest training was taken back.
        self._taken_back = False

    def started(self, head: bytes, place: str) -> _State:
        """The state of a device that starts with this head.

        Raises:
            RecordError: the head is not one of this model.
        """
        try:
            self._head.load(head)
        except _native.NanoError as error:
            raise RecordError(
                f"{place}: head is of {len(head)} bytes; expected a state of this model's ({error}). The "
                "record is damaged or was changed"
            ) from error
        return _State(head)

    def after(self, possible: list[_State], step: Step) -> tuple[list[_State], Exception | None]:
        """The states after a step, without those in which the head refuses it; the refusal, if all refuse."""
        states: list[_State] = []
        refusal: Exception | None = None
        for state in possible:
            try:
                states.append(self._after(state, step))
            except (_native.NanoError, OverflowError) as error:
                refusal = error
        return list(dict.fromkeys(states)), None if states else refusal

    def _after(self, state: _State, step: Step) -> _State:
        if step.request == "learn" and self._places:
            sample = (self._features(step.fields["input"]).tobytes(), step.fields["target"])
            ring = (*state.ring, sample)[-self._places :]
            first = state.first + len(state.ring) + 1 - len(ring)
            return replace(state, ring=ring, first=first, before=(state.head, state.ring, state.first))
        if step.request == "undo":
            if state.before is None:
                raise _native.NanoError("there is nothing to take back")
            return _State(*state.before)
        ring, first = ((), 0) if step.request == "reset" else (state.ring, state.first)
        self._taken_back = False
        head = self._change(state, step)
        before = None if self._taken_back else (state.head, state.ring, state.first)
        return _State(head, ring, first, before)

    def _change(self, state: _State, step: Step) -> bytes:
        """The head after a step that changes it."""
        head, fields = self._head, step.fields
        head.load(state.head)
        match step.request:
            case "learn":
                head.step(self._features(fields["input"])[0], fields["target"])
            case "train":
                features = np.frombuffer(b"".join(features for features, _ in state.ring), np.int8)
                targets = np.array([target for _, target in state.ring], np.int64)
                features = features.reshape(len(targets), head.features)
                steps = step.outcome.steps if isinstance(step.outcome, Done) else None
                self._taken_back = head.train(
                    features, targets, fields["epochs"], fields["first_epoch"], steps, state.first
                )
            case "commit":
                head.commit()
            case "add_class":
                head.add_class()
            case "forget":
                head.forget(fields["class_index"])
            case "reset":
                head.reset()
            case "replace_head":
                head.load(fields["state"])
            case "load":
                # The flash's head is known only from the device's answer, which may be lost.
                found = step.outcome.head if isinstance(step.outcome, Done) else None
                head.load(state.head if found is None else found)
        return head.state()

    def _features(self, input: bytes) -> np.ndarray[Any, np.dtype[np.int8]]:
        try:
            inputs = split(input, self._inputs)
        except InputError as error:
            raise _native.NanoError(f"a wrong input: {error}") from error
        features: np.ndarray[Any, np.dtype[np.int8]] = self._model.run([x[None] for x in inputs.values()])[0]
        return features
