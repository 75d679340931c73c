"""Locks for a device's stream, shared by threads and by several clients."""

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
    """A thread's memory between its requests."""

    def __init__(self) -> None:
        #: A late answer to a request of this thread, fetched before another thread's request.
        self.late: tuple[Request, dict[str, Any]] | None = None
        #: The latest request with an input: its name, the whole input, its fields.
        self.run: tuple[str, bytes, dict[str, Any]] | None = None


class Turn:
    """A reentrant lock on a stream, for whole operations.

    Args:
        stream: the open stream that several clients share; None: the stream of one client.
    """

    def __init__(self, stream: object) -> None:
        # Referenced, so that no other object gets its id.
        self._stream = stream
        self._lock = threading.RLock()
        self._process = os.getpid()
        #: The number of the latest request on this stream.
        self.sequence = 0

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The lock, for `with`. It has no methods in Python, in which Ctrl-C could leave it locked for ever.

        Raises:
            ConnectionFailed: in a process that was forked from the one with the connection.
        """
        if os.getpid() != self._process:
            # The lock may be held for ever in this process, and both processes would get half of the answers.
            raise ConnectionFailed(
                f"this connection belongs to process {self._process}, from which this one was forked: make a "
                "new Device here",
                "Forked",
            )
        return self._lock


_turns: WeakValueDictionary[int, Turn] = WeakValueDictionary()
_making = threading.Lock()


def turn_on(stream: object | None) -> Turn:
    """The lock of all clients of an open stream.

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
    """Makes a method one operation: no other thread sends requests between its own."""

    @wraps(act)
    def alone(self: _Client, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with self._turn.lock:
            return act(self, *arguments, **options)

    return alone
