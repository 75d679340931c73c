"""Requests and answers over a stream that may lose bytes, or end and come back."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import local
from typing import Any
from weakref import ref

from .. import _native
from ..errors import (
    ConnectionFailed,
    ConnectionLost,
    DeviceError,
    DeviceTimeout,
    UpdateError,
    WrongModelError,
)
from .answers import LogEntry
from .report import Report
from .transport.streams import Stream
from .transport.transports import Transport
from .turns import Asker, Request, Turn
from .unasked import Sample, Unasked

_FRAME_END = b"\0"
_CHUNK = 1 << 16
_LOG_LENGTH = 1000
#: Number of times that a request is sent on a noisy line.
_NOISE_ATTEMPTS = 3
#: Seconds before a lost connection is opened again.
_PAUSE = 0.1
#: Longest frame accepted before the device has told its own limit.
_LONGEST_FRAME = 1 << 20

#: Failures that leave it unknown whether the request was executed.
_NOISE = ("Noise", "Frame", "TooLong")


@dataclass(frozen=True)
class _Sent:
    """A request without an answer."""

    request: Request
    number: int
    frame: bytes
    #: The thread that asked, as long as it lives.
    asker: ref[Asker]


class Link:
    """Sends each request until it is answered; the device executes it only once.

    A request keeps its number when it is sent again: after no answer or noise, after a lost connection, or
    when the user repeats it after an error. The device then repeats its answer instead of executing it again.
    It remembers the latest request only, so an unanswered request of another thread is sent again before a
    different one, and its answer is kept for that thread.

    Args:
        transport: the way to the device; opens the stream unless `stream` is given.
        timeout: seconds to wait for an answer, and again for a lost connection.
        turn: the lock, held by callers of all methods except :meth:`close`.

    Raises:
        ConnectionFailed: the stream cannot be opened.
    """

    def __init__(self, transport: Transport, stream: Stream | None, timeout: float, turn: Turn) -> None:
        self.transport, self.timeout = transport, timeout
        self._turn = turn
        #: The model that requests are meant for; None for any.
        self.model_id: int | None = None
        #: The latest requests.
        self.log: deque[LogEntry] = deque(maxlen=_LOG_LENGTH)
        #: The session of the latest :meth:`begin`; the device refuses requests of other sessions.
        self._session = 0
        #: Bytes of the longest answer.
        self.longest_frame = _LONGEST_FRAME
        #: Reports of a device that senses by itself, until they are taken.
        self._unasked = Unasked()
        self._received = bytearray()
        #: Whether the buffer begins at the start of a frame; not after one that was too long.
        self._whole = True
        self._closed = False
        self._unanswered: _Sent | None = None
        self._is_waiting = False
        self._askers = local()
        if stream is None:
            if transport.open is None:
                raise ConnectionFailed(f"{transport.name} is no open stream")
            stream = transport.open()
        self.stream = stream

    @property
    def asker(self) -> Asker:
        """This thread's memory of its requests."""
        if not hasattr(self._askers, "own"):
            self._askers.own = Asker()
        asker: Asker = self._askers.own
        return asker

    @contextmanager
    def on_behalf_of(self, asker: Asker) -> Iterator[None]:
        """Sends requests in the block on behalf of another thread, which must not send any meanwhile."""
        own, self._askers.own = self.asker, asker
        try:
            yield
        finally:
            self._askers.own = own

    def begin(self) -> None:
        """Begins a session, which ends when the device restarts or another client begins one.

        Raises:
            DeviceError: the device refuses, or gives an unexpected answer.
            ConnectionLost, DeviceTimeout: no answer came.
        """
        self._session = secrets.randbelow(0xFFFF) + 1
        self.ask("begin", "done")

    def ask(self, request: str, response: str, **fields: Any) -> dict[str, Any]:
        """The fields of the answer, which must be of the kind `response`.

        Raises:
            DeviceError: the device refuses, or gives an unexpected answer.
            ConnectionLost, DeviceTimeout: no answer came.
        """
        self._require_open()
        if self._is_waiting:
            raise DeviceError(
                f"the request {request!r} was not sent: this thread waits for the answer to another one; do "
                "not ask in a signal handler",
                "Unsent",
            )
        asker, wanted = self.asker, (request, fields)
        late, asker.late = asker.late, None
        if late is not None and late[0] == wanted:
            return _checked(late[1], request, response)
        if not self._is_unanswered(wanted):
            self._settle(request)
            # From 1 to 65535: 0 is for requests without a number.
            number = self._turn.sequence % 0xFFFF + 1
            frame = _native.encode_request(
                request, sequence=number, session=self._session, model_id=self.model_id, **fields
            )
            self._turn.sequence = number
            self._unanswered = _Sent(wanted, number, frame, ref(asker))
        return _checked(self._answer(), request, response)

    def is_open(self, request: str, fields: dict[str, Any]) -> bool:
        """Whether this is this thread's request without an answer."""
        late = self.asker.late
        return self._is_unanswered((request, fields)) or (late is not None and late[0] == (request, fields))

    def _is_unanswered(self, request: Request) -> bool:
        sent = self._unanswered
        return sent is not None and sent.request == request and sent.asker() is self.asker

    def _settle(self, request: str) -> None:
        """Gets the answer to another thread's unanswered request before a new request is sent.

        Raises:
            DeviceError: there is still no answer.
        """
        sent = self._unanswered
        if sent is None or sent.asker() in (None, self.asker):
            return
        unsent = f"the request {request!r} was not sent: that of another thread is to be answered first"
        try:
            answer = self._keep_answer()
        except DeviceError as error:
            kinds = (DeviceTimeout, ConnectionLost, DeviceError)
            kind = next(kind for kind in kinds if isinstance(error, kind))
            raise kind(f"{unsent}. {error}", "Unsent") from error
        if _is_noise(answer):
            raise DeviceError(f"{unsent}, and no answer to it could be read: {answer['reason']}", "Unsent")

    def _keep_answer(self) -> dict[str, Any]:
        """Sends the unanswered request again, and keeps its answer for the thread that sent it."""
        assert self._unanswered is not None
        sent = self._unanswered
        answer = self._answer()
        asker = sent.asker()
        if asker is not None:
            asker.late = (sent.request, answer)
        return answer

    def next_report(self) -> Report:
        """The oldest report that was not taken; waits for one.

        Raises:
            DeviceTimeout: none came in time.
            ConnectionLost: the stream has ended.
        """
        self._wait_unasked(lambda: bool(self._unasked.reports), "reported nothing")
        return self._unasked.reports.popleft()

    def next_sample(self) -> Sample | None:
        """The oldest sample that was not taken; waits for one. None: the recorded sensor has ended.

        Raises:
            DeviceTimeout: none came in time.
            ConnectionLost: the stream has ended.
        """
        kept = self._unasked
        self._wait_unasked(lambda: bool(kept.samples) or kept.ended, "sent no sample")
        return kept.samples.popleft() if kept.samples else None

    def _wait_unasked(self, is_there: Callable[[], bool], missing: str) -> None:
        self._require_open()
        deadline = time.monotonic() + self.timeout
        while not is_there():
            try:
                frame = self._frame(deadline)
            except TimeoutError as error:
                raise DeviceTimeout(
                    f"the device {missing}: does it sense by itself, and has its recording not "
                    f"ended? ({error})"
                ) from error
            except (OSError, EOFError) as error:
                raise ConnectionLost(
                    f"the connection to {self.transport.name!r} was lost ({error})"
                ) from error
            with suppress(_native.NanoError):  # damaged: its number will be missing
                self._unasked.take(_native.decode_response(frame))

    def wait_for_start(self) -> None:
        """Waits for the end byte that a device sends when it starts, or for a lost connection to come back.

        Raises:
            DeviceTimeout: nothing came in time.
            ConnectionLost: the connection has ended, and did not come back.
        """
        try:
            while _FRAME_END not in self._received:
                received = self.stream.read(_CHUNK)
                if not received:
                    raise EOFError("the stream has ended")
                self._received += received
        except TimeoutError as error:
            raise DeviceTimeout(f"the device did not start again ({error})") from error
        except (OSError, EOFError) as error:
            self._wait_for_connection("restart", error, None)
            return
        # Before it: text of the chip's boot loader, or a report.
        frame, _, self._received = self._received.partition(_FRAME_END)
        self._whole = True
        with suppress(_native.NanoError):
            self._unasked.take(_native.decode_response(bytes(frame)))

    def reopen(self) -> None:
        """Reopens the connection, and sends the unanswered request again, if any.

        Raises:
            ConnectionFailed: the stream cannot be opened, or was not opened here.
            ConnectionLost, DeviceTimeout: no answer came.
        """
        self._require_open()
        if self.transport.open is None:
            raise ConnectionFailed(
                f"{self.transport.name} was given open: this client cannot open it again; make a new Device"
            )
        self.stream.close()
        self._open()
        if self._unanswered is not None:
            self._keep_answer()

    def close(self) -> None:
        """Ends the connection for good. It needs no lock: it wakes a thread that waits for an answer."""
        self._closed = True
        self.stream.close()

    def _require_open(self) -> None:
        if self._closed:
            # With a name, as a refusal: nothing was sent.
            raise ConnectionLost("this Device was closed; make a new one", "Closed")

    def _answer(self) -> dict[str, Any]:
        """Waits for the answer to the unanswered request."""
        assert self._unanswered is not None
        (request, _), frame = self._unanswered.request, self._unanswered.frame
        start, sent, outcome = time.monotonic(), 0, ""
        deadline, lost_until = start + self.timeout, None
        self._is_waiting = True
        try:
            while True:
                sent += 1
                try:
                    # The zero byte in front ends a partial frame, left by noise or a lost connection.
                    self.stream.write(_FRAME_END + frame)
                    answer = self._matching(deadline)
                except TimeoutError as error:
                    if self._closed:
                        raise
                    if sent >= self.transport.attempts or time.monotonic() > deadline:
                        raise DeviceTimeout(
                            f"the device did not answer the request {request!r} within "
                            f"{time.monotonic() - start:.1f} s (a larger timeout allows more). It may still "
                            f"work on it: ask the same again to wait on, or reconnect(). ({error})"
                        ) from error
                    continue
                except (OSError, EOFError) as error:
                    if self._closed:
                        raise
                    deadline = lost_until = self._wait_for_connection(request, error, lost_until)
                    continue
                if not _is_noise(answer) or sent >= _NOISE_ATTEMPTS:
                    break
            outcome = answer["reason"] if answer["kind"] == "refused" else answer["kind"]
            if not _is_noise(answer):
                self._unanswered = None
            return answer
        except Exception as error:
            outcome = str(error)
            if self._closed:
                # A stream that another thread closes may fail in any way.
                outcome = (
                    f"this Device was closed during the request {request!r}; whether that was executed is "
                    "not known. Make a new Device"
                )
                raise ConnectionLost(outcome) from error
            raise
        finally:
            self._is_waiting = False
            self.log.append(LogEntry(request, outcome, time.monotonic() - start, sent))

    def _wait_for_connection(self, request: str, cause: Exception, deadline: float | None) -> float:
        """Reopens a lost connection as soon as possible; returns the deadline for losing it again.

        Args:
            deadline: the result of the previous call for the same request, if any.
        """
        lost = f"the connection to {self.transport.name!r} was lost during the request {request!r} ({cause})"
        if not self.transport.reopens or self.transport.open is None:
            raise ConnectionLost(lost) from cause
        if deadline is not None and time.monotonic() > deadline:
            raise ConnectionLost(
                f"{lost}, again and again for {self.timeout:g} s. Is a device there, and free?"
            ) from cause
        self.stream.close()
        deadline = deadline or time.monotonic() + self.timeout
        while True:
            time.sleep(_PAUSE)
            try:
                self._open()
                return deadline
            except ConnectionFailed as error:
                if time.monotonic() > deadline:
                    raise ConnectionLost(
                        f"{lost}, and did not come back within {self.timeout:g} s"
                    ) from error

    def _open(self) -> None:
        assert self.transport.open is not None
        self.stream = self.transport.open()
        if self._closed:  # meanwhile, the stream before
            self.stream.close()
            self._require_open()
        self._received.clear()
        self._whole = True

    def _matching(self, deadline: float) -> dict[str, Any]:
        """The next answer to the unanswered request, or to a request that the device could not read."""
        assert self._unanswered is not None
        while True:
            frame = self._frame(deadline)
            try:
                answer = _native.decode_response(frame)
            except _native.NanoError as error:
                return {"kind": "refused", "failure": "Noise", "reason": str(error)}
            if not self._unasked.take(answer) and answer["sequence"] in (self._unanswered.number, 0):
                return answer
            _require_time(deadline)

    def _frame(self, deadline: float) -> bytes:
        """The next frame, without its end byte."""
        while True:
            if _FRAME_END in self._received:
                frame, _, self._received = self._received.partition(_FRAME_END)
                whole, self._whole = self._whole, True
                # An end byte alone is no frame: a device sends one when it starts.
                if whole and frame:
                    return bytes(frame)
                continue
            if len(self._received) > self.longest_frame:
                self._received.clear()
                if self._whole:
                    self._whole = False
                    raise DeviceError(
                        f"more than {self.longest_frame} bytes came without the end of a frame: is something "
                        "else than a device there, or does it print on this port?",
                        "Noise",
                    )
            if self._received or not self._whole:
                _require_time(deadline)
            received = self.stream.read(_CHUNK)
            if not received:
                raise EOFError("the stream has ended")
            self._received += received


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("something else came, but no answer")


def _is_noise(answer: dict[str, Any]) -> bool:
    """Whether request or answer was damaged in transit."""
    return answer["kind"] == "refused" and answer["failure"] in _NOISE


def is_unanswered(error: Exception) -> bool:
    """Whether a request with this error may have been executed nevertheless."""
    return not isinstance(error, DeviceError) or not error.failure or error.failure in _NOISE


def _checked(answer: dict[str, Any], request: str, response: str) -> dict[str, Any]:
    if answer["kind"] == "refused":
        refused = f"the device refused the request {request!r}"
        unread = f"no answer to the request {request!r} could be read"
        reason = f"{unread if answer['failure'] == 'Noise' else refused}: {answer['reason']}"
        kind = WrongModelError if answer["failure"] == "Model" else DeviceError
        # A frame that was damaged on the way has no more than its failure.
        if answer.get("of_update"):
            kind = UpdateError
        raise kind(reason, answer["failure"])
    if answer["kind"] != response:
        raise DeviceError(f"the device answered {answer['kind']!r} to the request {request!r}")
    return answer
