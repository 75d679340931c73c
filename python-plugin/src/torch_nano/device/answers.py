"""Answers of devices, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer, probability, the_only
from ..tables import Table
from .graph_values import GraphValue

#: A confidence of 1 in the device's units.
_CERTAIN = 1 << 15
#: Numbers of an array that are printed.
_SHOWN = 12


class _Answer:
    """A dataclass whose fields are taken from an answer."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return cls(**{name: answer[name] for name in names})


@dataclass(frozen=True)
class DeviceInfo(_Answer):
    """A device's description of itself."""

    #: Version of the protocol.
    protocol: int
    #: Checksum of the model's image: :attr:`torch_nano.NanoModule.id` of the same model.
    model_id: int
    #: Name of the model.
    name: str
    #: The model's inputs, in the order in which they are sent.
    inputs: tuple[GraphValue, ...]
    #: The model's outputs; with a head the first is the features.
    outputs: tuple[GraphValue, ...]
    #: Whether it has states, kept from run to run; :meth:`torch_nano.Device.reset_states` resets them.
    has_states: bool
    #: Bytes of all inputs of one run.
    input_length: int
    #: Bytes of all outputs of one run.
    output_length: int
    #: Number of layers, with the head.
    layers: int
    #: Classes of the head at present, 0 without one.
    classes: int
    #: The largest number of classes it can have.
    class_capacity: int
    #: Bytes of the head's state, 0 without one.
    head_length: int
    #: Number of labelled features that the device keeps; 0 for a head that learns each sample at once.
    ring_capacity: int
    #: Bytes of arena.
    arena_length: int
    #: Bytes of inputs, tensors or states per frame; longer ones are sent in parts.
    frame_length: int
    #: Number, among all saves, of the head in flash that can be loaded; None if there is none.
    saved: int | None
    #: Number of the latest save, if it was interrupted or is damaged; :attr:`saved` is then the one before.
    #: None if nothing is lost.
    lost_save: int | None
    #: The reason why no head can be loaded.
    saved_reason: str | None
    #: Whether it started with a saved head.
    restored: bool
    #: The head's kind of targets: "class", one right class; "labels", all right classes; "value", a number.
    #: None without a head.
    target: str | None
    #: Bytes that an image may have to be sent by :meth:`torch_nano.Device.update`; 0: the device takes none.
    update_room: int
    #: The number of the update that it runs; 0: the model of its program.
    update: int
    #: Whether that is on trial: unless it is confirmed, the next start takes the model before.
    on_trial: bool

    @property
    def longest_answer(self) -> int:
        """An upper bound of an answer's bytes: two tensors with their encoding, texts and numbers."""
        return 3 * self.frame_length + 4096


@dataclass(frozen=True)
class DeviceSettings:
    """Settings of a device; saved with the head.

    >>> DeviceSettings.of({"rejection": 16384, "save_interval": 0})
    DeviceSettings(rejection=0.5, save_interval=0)
    """

    #: A prediction with a confidence below this is of no known class; 0: any confidence will do.
    rejection: float
    #: Number of changes after which the device saves the head automatically; 0: never.
    save_interval: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From the fields of an answer."""
        return cls(answer["rejection"] / _CERTAIN, answer["save_interval"])

    def request(self) -> dict[str, int]:
        """The fields of the request that sets them.

        Raises:
            InputError: the rejection is not a probability, or the interval not a number of changes.
        """
        rejection = probability("rejection", self.rejection)
        return {
            "rejection": round(rejection * _CERTAIN),
            "save_interval": integer("save_interval", self.save_interval),
        }


@dataclass(frozen=True, repr=False)
class Prediction:
    """A device's prediction for one input."""

    #: Index of the largest logit, or without a head of the largest element of the first output; the first of
    #: equal ones (for heads that choose one class). Of a model that ends in an argmax, its index.
    label: int
    #: The class's name on the device; "" without a name.
    name: str
    #: Its probability, 0 to 1 (softmax in the device's integers); None if outputs do not exclude each other,
    #: or are indices.
    confidence: float | None
    #: By how much that exceeds the probability of the second class: a label helps most where it is least.
    #: None as the confidence.
    margin: float | None
    #: False if the input is of no known class: its features are too far from all classes' (of a model with a
    #: :class:`torch_nano.heads.Rejection`), or the confidence is below :attr:`DeviceSettings.rejection`.
    known: bool
    #: The outputs by name, integers [elements] each, in the device's order (height, width, channels); with a
    #: head the first is the features.
    outputs: dict[str, NDArray[Any]]
    #: The head's logits, int32 [classes]; empty without a head.
    logits: NDArray[np.int32]
    #: Instructions (emulated board) or cycles of the run; 0 on a simulated device.
    ticks: int
    #: The number, for a head that predicts one.
    value: float | None = None
    #: The indices of the right classes, for a head with several right classes.
    right: tuple[int, ...] | None = None

    @property
    def output(self) -> NDArray[Any]:
        """The output, for a model of one output.

        Raises:
            InputError: the model has several.
        """
        return the_only("output", self.outputs)

    @property
    def table(self) -> Table:
        """What is predicted, and the scores of the classes, as printed."""
        if self.value is not None:
            headline = f"value {self.value:.6g}"
        elif self.right is not None:
            headline = f"right: {', '.join(map(str, self.right)) or 'none'}"
        else:
            headline = f"class {self.label}" + (f", {self.name}" if self.name else "")
            headline += "" if self.known else " (rejected)"
        if self.confidence is not None and self.margin is not None:
            headline += f": {self.confidence:.1%} sure, {self.margin:.1%} ahead of the second"
        if self.ticks:
            headline += f"; {self.ticks:,} ticks"
        table = Table(("output", "integers"), headline)
        for name, array in self.outputs.items():
            table.add(name, _shortened(array))
        if self.logits.size:
            table.add("logits", _shortened(self.logits))
        return table

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table.html()


def _shortened(array: NDArray[Any]) -> str:
    """The first numbers of an array.

    >>> _shortened(np.arange(20))
    '0 1 2 3 4 5 6 7 8 9 10 11 ... (20)'
    """
    numbers = " ".join(map(str, array[:_SHOWN].tolist()))
    return f"{numbers} ... ({array.size})" if array.size > _SHOWN else numbers


def probability_of(answer: Mapping[str, Any], name: str) -> float | None:
    """The "confidence" or "margin" in an answer to a prediction.

    >>> probability_of({"confidence": 8192}, "confidence")
    0.25
    """
    return None if answer[name] is None else answer[name] / _CERTAIN


@dataclass(frozen=True)
class DeviceStats(_Answer):
    """Counters of a device since its start; all except `startup_ticks` wrap to 0 after 2^32 - 1."""

    #: Requests executed or refused, without repeated ones.
    requests: int
    #: Requests that were refused.
    refused_requests: int
    #: Frames that were not requests: damaged, too long, of another protocol version.
    refused_frames: int
    #: Requests that arrived again and were answered again.
    repeated: int
    #: Runs of the model.
    runs: int
    #: Samples learnt.
    learned: int
    #: Steps of training.
    steps: int
    #: Trainings that were taken back: they had not made the head better (:class:`torch_nano.heads.SGD`,
    #: `guard`).
    taken_back: int
    #: Changes of the head.
    changes: int
    #: Heads saved.
    saves: int
    #: Heads that could not be saved.
    failed_saves: int
    #: Instructions (emulated board) or cycles from the start of the board until it was ready: it checks the
    #: image and loads the head. 0 on a simulated device.
    startup_ticks: int


@dataclass(frozen=True)
class LogEntry:
    """A request as seen by the client; in :attr:`torch_nano.Device.log`."""

    #: The request's name in the protocol.
    request: str
    #: The answer's name; for a request that failed the reason.
    answer: str
    #: From sending to answer.
    seconds: float
    #: Number of times it was sent.
    sent: int
