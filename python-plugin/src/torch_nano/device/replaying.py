"""A record repeated by the head's twin on the PC, to the bit."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _native
from ..errors import TorchNanoError
from ..heads import Head, head_of
from .recording import FORMAT, VERSION, RecordError

if TYPE_CHECKING:
    from ..module import NanoModule

#: Requests of unknown outcome double what is possible; more than this many open ones are no record to trust.
_MOST_POSSIBILITIES = 256


class ReplayDifference(TorchNanoError):
    """The device's head and its twin's differ."""

    def __init__(self, message: str, *, step: int, last_equal_step: int, head: bytes) -> None:
        super().__init__(message)
        #: The first step after which they were seen to differ, from 1.
        self.step = step
        #: The last step before, after which they were seen to agree; 0: only at the start.
        self.last_equal_step = last_equal_step
        #: The state of the twin's head after :attr:`step`; before it, if the twin refuses the step.
        self.head = head


@dataclass(frozen=True)
class Replay:
    """A record that was repeated, and in which no difference was found."""

    #: The head as it ends, a module of its own.
    head: Head = field(repr=False)
    steps: int
    #: After how many steps device and twin were compared.
    checks: int
    #: Whether the record leaves open if a request was executed, and `head` is without it.
    outcome_unknown: bool


@dataclass(frozen=True)
class _Step:
    number: int
    #: The lines of the file: what was asked, and how it went ({} if that is not known).
    asked: dict[str, Any]
    outcome: dict[str, Any]

    def __str__(self) -> str:
        shown = ("epochs", "first_epoch", "kind", "target", "name", "class_index")
        fields = ", ".join(f"{name} {self.asked[name]}" for name in shown if name in self.asked)
        return f"step {self.number} ({self.asked['request']}{', ' if fields else ''}{fields})"


@dataclass(frozen=True)
class _State:
    """What a device may hold."""

    head: bytes
    #: Features and targets that it keeps for training, the oldest first.
    ring: tuple[tuple[bytes, int], ...] = ()
    #: Head and ring before the latest change; None if that cannot be taken back.
    before: tuple[bytes, tuple[tuple[bytes, int], ...]] | None = None


def replay(path: str | Path, nano: NanoModule | bytes) -> Replay:
    """Repeats a record with the nn.Module twin of the head, and compares it with what the device had.

    Args:
        path: the file that :func:`record` made.
        nano: the model, or its image; its head stays as it is.

    Raises:
        ReplayDifference: they differ; its `step` is the first after which they do.
        RecordError: the file is no record, is damaged, or is of another model.
        OSError: it cannot be read.
    """
    image = nano if isinstance(nano, bytes) else nano.image
    start, *steps = _read(Path(path), image)
    twin = _Twin(image, start.asked["ring_capacity"])
    possible = [_State(base64.b64decode(start.asked["head"]))]
    checks, last_equal = 0, 0
    for step in steps:
        if "refused" in step.outcome:
            continue
        try:
            after = [twin.step(state, step) for state in possible]
        except _native.NanoError as error:
            raise ReplayDifference(
                f"the device executed {step}, which its twin refuses: {error}",
                step=step.number,
                last_equal_step=last_equal,
                head=possible[0].head,
            ) from error
        if not step.outcome:
            possible += after
            if len(possible) > _MOST_POSSIBILITIES:
                raise RecordError(f"{path}: too many requests up to {step} of which the outcome is not known")
            continue
        possible, equal = after, after
        if "samples" in step.outcome:
            equal = [state for state in equal if len(state.ring) == step.outcome["samples"]]
            if not equal:
                kept = f"the device kept {step.outcome['samples']} samples, its twin {len(possible[0].ring)}"
                raise ReplayDifference(
                    f"after {step} {kept}",
                    step=step.number,
                    last_equal_step=last_equal,
                    head=possible[0].head,
                )
        if "head_crc32" in step.outcome:
            device = step.outcome["head_crc32"]
            equal = [state for state in equal if _native.crc32(state.head) == device]
            if not equal:
                own = _native.crc32(possible[0].head)
                raise ReplayDifference(
                    f"the heads differ after {step}: CRC-32 {device:08x} on the device, {own:08x} here. "
                    f"They agreed {f'after step {last_equal}' if last_equal else 'at the start'}",
                    step=step.number,
                    last_equal_step=last_equal,
                    head=possible[0].head,
                )
            checks, last_equal = checks + 1, step.number
        possible = list(dict.fromkeys(equal))
    head = head_of(image)
    head.load(possible[0].head)
    return Replay(head, len(steps), checks, len(possible) > 1)


class _Twin:
    """Carries out steps on states."""

    def __init__(self, image: bytes, ring_capacity: int) -> None:
        self._model = _native.Model(image)
        self._head = head_of(image)._head
        self._places = ring_capacity

    def step(self, state: _State, step: _Step) -> _State:
        """The state after it.

        Raises:
            NanoError: the head cannot do it.
        """
        outcome, request = step.outcome, step.asked["request"]
        if outcome.get("restarted"):
            head = base64.b64decode(outcome["head"])
            if request == "learn" and self._places and outcome["executed"]:
                return self._learn(_State(head), step.asked)
            return _State(head)
        if request == "learn" and self._places:
            return self._learn(state, step.asked)
        if request == "undo":
            if state.before is None:
                raise _native.NanoError("there is nothing to take back")
            return _State(*state.before)
        ring = () if request == "reset" else state.ring
        return _State(self._change(state, step), ring, (state.head, state.ring))

    def _learn(self, state: _State, asked: dict[str, Any]) -> _State:
        """One more sample in the ring."""
        sample = (self._features(asked).tobytes(), asked["target"])
        return replace(state, ring=(*state.ring, sample)[-self._places :], before=(state.head, state.ring))

    def _change(self, state: _State, step: _Step) -> bytes:
        """The head after a step that changes it."""
        head, asked = self._head, step.asked
        head.load(state.head)
        match asked["request"]:
            case "learn":
                head.step(self._features(asked)[0], asked["target"])
            case "train":
                features = np.frombuffer(b"".join(features for features, _ in state.ring), np.int8)
                targets = np.array([target for _, target in state.ring], np.int64)
                features = features.reshape(len(targets), head.features)
                head.train(features, targets, asked["epochs"], asked["first_epoch"])
            case "commit":
                head.commit()
            case "add_class":
                head.add_class()
            case "forget":
                head.forget(asked["class_index"])
            case "reset":
                head.reset()
            case "replace_head":
                head.load(base64.b64decode(asked["state"]))
            case "load":
                # What the flash holds is known from the device alone: None if its answer was lost.
                head.load(base64.b64decode(step.outcome["head"]) if step.outcome else state.head)
            case other:
                raise RecordError(f"{step}: no request {other!r} changes a head")
        return head.state()

    def _features(self, asked: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int8]]:
        input = np.frombuffer(base64.b64decode(asked["input"]), np.int8)
        (features,) = self._model.run([input[None]])
        return features


def _read(path: Path, image: bytes) -> Iterator[_Step]:
    """The start, as step 0, and the steps."""
    # What does not end with a line's end was being written as the PC went down.
    lines = path.read_text("utf-8").split("\n")[:-1]
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(dict(json.loads(line)))
        except ValueError as error:
            raise RecordError(f"{os.fspath(path)}, line {number} is damaged: {error}") from error
    if not entries or FORMAT not in entries[0]:
        raise RecordError(f"{os.fspath(path)} is no record of a device")
    start = entries[0]
    if start[FORMAT] != VERSION:
        raise RecordError(f"{os.fspath(path)} is of version {start[FORMAT]}; this package reads {VERSION}")
    model = _native.Model(image)
    if start["model_id"] != model.id:
        raise RecordError(
            f"{os.fspath(path)} was made with {start['name']!r}, model {start['model_id']:08x}; given is "
            f"{model.name!r}, {model.id:08x}"
        )
    yield _Step(0, start, {})
    number = 0
    for index, entry in enumerate(entries[1:], 2):
        following = entries[index] if index < len(entries) else {}
        if "request" not in entry:
            if entry.get("step") != number:
                raise RecordError(
                    f"{os.fspath(path)}, line {index}: step {entry.get('step')} follows {number}"
                )
            continue
        number += 1
        if entry["step"] != number:
            raise RecordError(
                f"{os.fspath(path)}, line {index}: step {entry['step']} in the place of {number}"
            )
        yield _Step(number, entry, {} if "request" in following else following)
