"""Deferred Ctrl-C, for sections that it must not interrupt.

Python raises KeyboardInterrupt anywhere in the main thread, inside its standard library, too: a lock with
methods in Python, as in Event, Future and Thread.start, may stay locked.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defers Ctrl-C to the end of the block; yields a function that says whether it was pressed.

    A second Ctrl-C is not deferred. No effect in threads other than the main one, as Ctrl-C does not reach
    them.

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
