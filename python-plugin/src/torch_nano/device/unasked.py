"""What a device that senses by itself sends without being asked each time: reports, and samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .report import Report

#: The latest reports and samples, kept until they are taken.
_KEPT = 100_000


@dataclass(frozen=True)
class Sample:
    """A sample that a device took with its own sensor."""

    #: Samples that were due before it since the device's start. A number left out is a sample that the device
    #: missed, or that was lost on the way.
    number: int
    #: Whether it came after a gap in what the sensor saw.
    after_gap: bool
    #: Its numbers in the sensor's own units, float32 [numbers].
    values: NDArray[np.float32]


class Unasked:
    """Keeps reports and samples as they come.

    >>> unasked = Unasked()
    >>> first = {"sample": 7, "after_gap": False, "first": 0, "left": 1, "numbers": np.float32(2).tobytes()}
    >>> second = {**first, "first": 1, "left": 0, "numbers": np.float32(3).tobytes()}
    >>> unasked.take({"kind": "sample", **first}), unasked.take({"kind": "sample", **second})
    (True, True)
    >>> unasked.samples.popleft()
    Sample(number=7, after_gap=False, values=array([2., 3.], dtype=float32))
    """

    def __init__(self) -> None:
        self.reports: deque[Report] = deque(maxlen=_KEPT)
        self.samples: deque[Sample] = deque(maxlen=_KEPT)
        #: Whether the device's recorded sensor has ended.
        self.ended = False
        #: The parts so far of a sample that is not complete, and its number.
        self._parts, self._number = b"", -1

    def take(self, answer: Mapping[str, Any]) -> bool:
        """Keeps a decoded frame; returns False if it is an answer."""
        if answer["kind"] == "report":
            self.reports.append(Report.of(answer))
            self.ended = answer["event"] == "ended"
        elif answer["kind"] == "sample":
            self._take_part(answer)
        else:
            return False
        return True

    def _take_part(self, part: Mapping[str, Any]) -> None:
        if part["first"] == 0:
            self._parts, self._number = b"", part["sample"]
        # A sample of which a part was lost is lost.
        if part["sample"] != self._number or 4 * part["first"] != len(self._parts):
            return
        self._parts += part["numbers"]
        if part["left"] == 0:
            values = np.frombuffer(self._parts, np.dtype("<f4")).astype(np.float32)
            self.samples.append(Sample(part["sample"], part["after_gap"], values))
