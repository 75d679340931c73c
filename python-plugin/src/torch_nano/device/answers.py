"""What devices answer, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer, probability, the_only
from .graph_values import GraphValue

#: What a confidence of 1 is on the device.
_CERTAIN = 1 << 15


class _Answer:
    """A dataclass made of the fields of an answer that it names."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return cls(**{name: answer[name] for name in names})


@dataclass(frozen=True)
class DeviceInfo(_Answer):
    """What a device says of itself."""

    #: Version of the protocol.
    protocol: int
    #: CRC-32 of the model's image: :attr:`torch_nano.NanoModule.id` of the same model.
    model_id: int
    #: Name of the model.
    name: str
    #: The model's inputs, in the order in which they travel.
    inputs: tuple[GraphValue, ...]
    #: The model's outputs; with a head the first is the features.
    outputs: tuple[GraphValue, ...]
    #: Whether it has states, which live from run to run; :meth:`torch_nano.Device.reset_states` resets them.
    has_states: bool
    #: Bytes of all inputs of one run.
    input_length: int
    #: Bytes of all outputs of one run.
    output_length: int
    #: Number of layers.
    layers: int
    #: Classes of the head at present, 0 without one.
    classes: int
    #: The most classes it can have.
    class_capacity: int
    #: Bytes of the head's state, 0 without one.
    head_length: int
    #: How many labelled features the device keeps; 0 for a head that learns each sample at once.
    ring_capacity: int
    #: Bytes of arena.
    arena_length: int
    #: Bytes of inputs, tensors or states that one frame takes; longer ones travel in parts.
    frame_length: int
    #: Number of the head in its flash that can be loaded, among all saves; None if there is none.
    saved: int | None
    #: Number of the latest save, if that is another: it was cut short or is damaged, and :attr:`saved` is the
    #: one before. None if nothing is lost.
    lost_save: int | None
    #: Why none can be loaded.
    saved_reason: str | None
    #: Whether it started with a saved head.
    restored: bool
    #: What the head learns from: "class", one right class; "labels", all right ones; "value", a number. None
    #: without a head.
    target: str | None

    @property
    def longest_answer(self) -> int:
        """More bytes than any answer has: two tensors, what they are coded with, texts and numbers."""
        return 3 * self.frame_length + 4096


@dataclass(frozen=True)
class DeviceSettings:
    """How a device behaves; saved with the head.

    >>> DeviceSettings.of({"rejection": 16384, "save_interval": 0})
    DeviceSettings(rejection=0.5, save_interval=0)
    """

    #: A prediction whose confidence is below this is of no known class; 0: all are known.
    rejection: float
    #: After this many changes of the head the device saves it by itself; 0: never.
    save_interval: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From the fields of an answer."""
        return cls(answer["rejection"] / _CERTAIN, answer["save_interval"])

    def request(self) -> dict[str, int]:
        """The fields of the request that sets them.

        Raises:
            InputError: a rejection that is no probability, or an interval that is no number of changes.
        """
        rejection = probability("rejection", self.rejection)
        return {
            "rejection": round(rejection * _CERTAIN),
            "save_interval": integer("save_interval", self.save_interval),
        }


@dataclass(frozen=True)
class Prediction:
    """What a device made of one input."""

    #: Index of the largest logit, or without a head of the largest element of the first output, the first of
    #: equals (for heads that choose one class).
    label: int
    #: Its name on the device, "" if it has none.
    name: str
    #: Its probability, 0 to 1 (softmax in the device's integers); None where outputs exclude nothing.
    confidence: float | None
    #: False if the confidence is below :attr:`DeviceSettings.rejection`: the input is of no known class. True
    #: where there is no confidence.
    known: bool
    #: The outputs by name, integers [elements] each, in the device's order (height, width, channels); with a
    #: head the first is the features.
    outputs: dict[str, NDArray[Any]]
    #: The head's logits, int32 [classes]; empty without a head.
    logits: NDArray[np.int32]
    #: Instructions (emulated board) or cycles the run took; 0 on a simulated device.
    ticks: int
    #: Of a head that gives a number: that number.
    value: float | None = None
    #: Of a head whose classes are each right or wrong: the indices of those that are right.
    right: tuple[int, ...] | None = None

    @property
    def output(self) -> NDArray[Any]:
        """The output, of a model of one.

        Raises:
            InputError: the model has several.
        """
        return the_only("output", self.outputs)


def confidence_of(answer: Mapping[str, Any]) -> float | None:
    """The probability in an answer to a prediction.

    >>> confidence_of({"confidence": 8192})
    0.25
    """
    return None if answer["confidence"] is None else answer["confidence"] / _CERTAIN


@dataclass(frozen=True)
class DeviceStats(_Answer):
    """Counters of a device since its start; each but `startup_ticks` goes on from 0 after 2^32 - 1."""

    #: Requests executed or refused, repeated ones not counted.
    requests: int
    #: Requests that were refused.
    refused_requests: int
    #: Frames that were no requests: damaged, too long, of another protocol version.
    refused_frames: int
    #: Requests that arrived again and were answered again.
    repeated: int
    #: Runs of the model.
    runs: int
    #: Samples learnt.
    learned: int
    #: Steps of training.
    steps: int
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
    """A request, as the client saw it; in :attr:`torch_nano.Device.log`."""

    #: The request's name in the protocol.
    request: str
    #: The answer's name; for a request that failed the reason.
    answer: str
    #: From sending to answer.
    seconds: float
    #: How often it was sent.
    sent: int
