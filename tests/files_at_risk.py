"""Processes that are killed between two steps of a write, and disks without room."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

#: Functions of `os` of which a write is made.
_STEPS = ("open", "write", "fsync", "fchown", "fchmod", "replace", "link", "unlink", "close", "ftruncate")
_WRITER = "torch_nano/files/writing.py"


class _Killer:
    """Kills this process before or after the so-many-eth step of a write, or in the middle of it."""

    def __init__(self, moment: int) -> None:
        self.moments = moment
        for name in _STEPS:
            setattr(os, name, partial(self.step, getattr(os, name)))

    def reached(self) -> None:
        self.moments -= 1
        if self.moments == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.endswith(_WRITER):
            return call(*arguments, **options)
        self.reached()
        half = len(arguments[1]) // 2 if call is _WRITE else 0
        if half:
            call(arguments[0], bytes(arguments[1])[:half])
            self.reached()
            arguments = (arguments[0], bytes(arguments[1])[half:])
        result = call(*arguments, **options)
        self.reached()
        return result + half if half else result


_WRITE = os.write


def killed_at_each_step(act: Callable[[], object]) -> Iterator[int]:
    """Does something again and again in forked processes, each killed one step of its writes later, until one
    is not; yields the number of steps before.
    """
    for moment in range(1, 500):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _Killer(moment)
                act()
                status = 0
            finally:
                os._exit(status)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended == 0:
            return
        assert ended == -signal.SIGKILL, f"it failed at step {moment}"
        yield moment
    raise AssertionError("it has no end")


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file can be longer than `most` bytes: writing more is an OSError, after a part of it was written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of `size` bytes in a folder; False where this process may not make one."""
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
