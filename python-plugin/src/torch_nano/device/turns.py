"""Whose turn it is to talk to a device: threads that share it, and several clients of one stream."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from ..errors import ConnectionFailed

#: A request's name and its fields.
Request = tuple[str, dict[str, Any]]


class Asker:
    """What is remembered of a thread between its requests."""

    def __init__(self) -> None:
        #: The answer that came late to a request of this thread, because another thread wanted to go on.
        self.late: tuple[Request, dict[str, Any]] | None = None
        #: The latest request with an input: its name, the whole input, its fields.
        self.run: tuple[str, bytes, dict[str, Any]] | None = None


class Turn:
    """A lock on a stream for whole operations, which a thread may take again.

    Args:
        stream: what is talked over, for clients that are given the same open stream; None: one client's own.
    """

    def __init__(self, stream: object) -> None:
        # Held, so that no other object gets its id.
        self._stream = stream
        self._lock = threading.RLock()
        self._process = os.getpid()
        #: The number of the latest request on this stream.
        self.sequence = 0

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """For `with`. It has no method in Python, in which Ctrl-C could leave it taken for ever.

        Raises:
            ConnectionFailed: in a process that was forked from the one with the connection.
        """
        if os.getpid() != self._process:
            # The other process may hold the lock for ever, and both would get half of the answers.
            raise ConnectionFailed(
                f"this connection belongs to process {self._process}, from which this one was forked: make a "
                "new Device here",
                "Forked",
            )
        return self._lock


_turns: WeakValueDictionary[int, Turn] = WeakValueDictionary()
_making = threading.Lock()


def turn_on(stream: object | None) -> Turn:
    """The turn of all who talk over an open stream.

    >>> stream = object()
    >>> turn_on(stream) is turn_on(stream), turn_on(None) is turn_on(None)
    (True, False)
    """
    if stream is None:
        return Turn(None)
    with _making:
        turn = _turns.get(id(stream))
        if turn is None:
            turn = _turns[id(stream)] = Turn(stream)
        return turn


class _TakesTurns(Protocol):
    _turn: Turn


_Client = TypeVar("_Client", bound=_TakesTurns)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def whole(
    act: Callable[Concatenate[_Client, _Arguments], _Result],
) -> Callable[Concatenate[_Client, _Arguments], _Result]:
    """Makes of a method one operation, between the requests of which no other thread asks anything."""

    @wraps(act)
    def alone(self: _Client, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with self._turn.lock:
            return act(self, *arguments, **options)

    return alone
