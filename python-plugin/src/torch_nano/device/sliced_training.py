"""Training on a device, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DeviceError
from .bars import Bars
from .link import Link
from .turns import Request

#: Failures of requests that were not sent: the training stays open.
_NOT_SENT = ("Unsent", "Closed")


class SlicedTraining:
    """A training from its first request to its end: the device answers after each slice of its steps.

    A slice without an answer leaves it open. Running it again asks for that answer first, so no slice is
    executed twice, from any thread.

    Args:
        link: to the device.
        fields: of the request "train".
    """

    def __init__(self, link: Link, fields: dict[str, Any]) -> None:
        self.fields = fields
        #: The thread that asked for it.
        self.asker = link.asker
        self._link = link
        self._next: Request = ("train", fields)
        self._sent = False

    def run(
        self, ask: Callable[..., dict[str, Any]], progress: Bars, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Continues to the end; returns the last answer, whose "steps" are the total.

        Args:
            ask: sends a request and returns its answer.
            progress: shows a bar if there is more than one slice.
            stop: whether to end the training now; called after each slice.

        Raises:
            DeviceError: the device refuses, or no answer came; the training then stays open.
        """
        with self._link.on_behalf_of(self.asker):
            answer = self._slice(ask)
            if self._is_over(answer):
                return answer
            with progress.bar("train", answer["steps"] + answer["left"]) as advance:
                shown = 0
                while True:
                    advance(answer["steps"] - shown)
                    shown = answer["steps"]
                    if self._is_over(answer):
                        return answer
                    self._next = ("stop" if stop() else "continue", {})
                    answer = self._slice(ask)

    def _slice(self, ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        request, fields = self._next
        if self._sent and request == "train" and not self._link.is_open(request, fields):
            # It was answered, but the answer was lost here: sent again it would begin another training.
            self._next = request, fields = "continue", {}
        begun, self._sent = self._sent, True
        try:
            return ask(request, "trained", **fields)
        except DeviceError as error:
            if begun and error.failure in _NOT_SENT:
                # This request changed nothing, but the training itself was not refused.
                error.failure = ""
            raise

    def _is_over(self, answer: dict[str, Any]) -> bool:
        return self._next[0] == "stop" or not answer["left"]
