"""Ctrl-C at places where it must not end what is being done.

Python raises KeyboardInterrupt between any two calls of the main thread, in its own library, too: a lock with
methods in Python may stay taken, and Event, Future and Thread.start are made of such.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Makes Ctrl-C wait for the end of the block, which is given whether it was pressed. A second does not.

    In threads other than the main one, which Ctrl-C does not reach, it does nothing.

    >>> try:
    ...     with deferred_interrupt() as interrupted:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("goes on", interrupted())
    ... except KeyboardInterrupt:
    ...     print("and then stops")
    goes on True
    and then stops
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def defer(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, defer)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        handler(signal.SIGINT, None)
