"""Reports of a device that senses by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..tables import paragraph
from .answers import probability_of


@dataclass(frozen=True, repr=False)
class Report:
    """What a device that senses by itself did.

    `event` is one of these, with these `details`; `head` is the CRC-32 of the head's state after it:

    - started: head, restored (whether that head was saved before)
    - sensed: class, confidence, margin (both in 1/32768), known, decided, ticks
    - learned: target (class, bits, or the number), head
    - trained: steps (since the training began), left, taken_back (at its end: whether it had not made the
      head better on the samples kept aside), head
    - committed: head
    - saved: saves (since the start); save_failed: failed_saves
    - refused: failure, reason
    - missed: samples (due while it was busy); sensor_failed; gap; ended: no details
    """

    #: Reports before this one, since the device's start. A number left out is a report that was lost.
    number: int
    #: Samples that were due since the start, missed ones included.
    samples: int
    event: str
    details: Mapping[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From the fields of a decoded frame."""
        return cls(answer["number"], answer["samples"], answer["event"], answer["details"])

    def __str__(self) -> str:
        details = dict(self.details)
        if self.event == "sensed":
            for name in ("confidence", "margin"):
                probability = probability_of(details, name)
                details[name] = None if probability is None else round(probability, 3)
        told = ", ".join(f"{name} {value}" for name, value in details.items())
        return f"{self.samples}: {self.event}{f' ({told})' if told else ''}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return paragraph(str(self))
