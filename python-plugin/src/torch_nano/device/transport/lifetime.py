"""Child programs that do not outlive this process, even if it is killed by SIGKILL.

On request (PR_SET_PDEATHSIG) Linux kills a program when its parent ends. The parent is the thread that
started it, so one thread starts all programs, and lives as long as the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from .interrupts import deferred_interrupt

#: Requests the signal, and becomes the program. The parent's process id shows whether it ended before that.
#: Not a `preexec_fn`, which would run Python in a fork of a process with threads.
_START = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(1, signal.SIGKILL, 0, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "no signal at the parent's death")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_Process = subprocess.Popen[Any]
_Request = tuple[Sequence[str], dict[str, Any], "Future[_Process]"]


class _Starter:
    """The thread that starts programs, created on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: SimpleQueue[_Request] | None = None

    def put(self, request: _Request) -> None:
        with self._lock:
            if self._requests is None:
                self._requests = SimpleQueue()
                threading.Thread(
                    target=_start_all, args=(self._requests,), name="torch_nano starter", daemon=True
                ).start()
            self._requests.put(request)


_starter = _Starter()


def _after_fork() -> None:
    """Replaces the starter after a fork: its thread is gone, and its lock may be held for ever."""
    global _starter
    _starter = _Starter()


os.register_at_fork(after_in_child=_after_fork)


def _start_all(requests: SimpleQueue[_Request]) -> None:
    while True:
        arguments, options, started = requests.get()
        try:
            started.set_result(subprocess.Popen(arguments, **options))
        except BaseException as error:  # raised in the thread that asked
            started.set_exception(error)
        del started


def start(arguments: Sequence[str], **options: Any) -> _Process:
    """Starts a program (its path, and its arguments) that is killed when this process ends.

    Args:
        options: of :class:`subprocess.Popen`.

    Raises:
        OSError: it cannot be started.
    """
    python = sys.executable or "python3"
    started: Future[_Process] = Future()
    _starter.put(([python, "-I", "-S", "-c", _START, str(os.getpid()), *arguments], options, started))
    try:
        with deferred_interrupt():
            process = started.result()
        return process
    except BaseException:
        # After Ctrl-C the program has no owner.
        started.add_done_callback(_discard)
        raise


def _discard(started: Future[_Process]) -> None:
    if started.exception() is None:
        process = started.result()
        process.kill()
        process.wait()
