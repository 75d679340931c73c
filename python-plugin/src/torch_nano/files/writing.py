"""Atomic and durable writes: a file holds its old content or all of the new.

That holds with a full disk, a signal or a power cut at any step. A killed process can leave a temporary file
named `.torch_nano-*` in the same folder, which is never read.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import MissingFileError

#: Errors of file systems without hard links (FAT, some network drives).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file atomically; one that exists is replaced, and its permissions and owner are kept.

    A symbolic link stays: the file it points to is replaced. Devices and pipes are written to directly.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "model")
    >>> write_file(file, b"old")
    >>> write_file(file, b"new")
    >>> file.read_bytes(), [other.name for other in file.parent.iterdir()]
    (b'new', ['model'])

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    with _naming(path):
        target = Path(os.path.realpath(path))
        old = target.stat() if target.exists() else None
        if old is not None and not stat.S_ISREG(old.st_mode):
            with target.open("wb") as file:
                file.write(content)
            return
        if old is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with _temporary(target.parent, content, old) as temporary:
            os.replace(temporary, target)
        _sync_folder(target.parent)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file atomically that must not exist yet.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "head")
    >>> write_new(file, b"first")
    >>> write_new(file, b"second")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileExistsError: [Errno 17] File exists: '...head'

    Raises:
        FileExistsError: a file, a folder or a link of that name exists.
        OSError: it cannot be written; no file of that name exists then.
    """
    with _naming(path):
        _require_missing(path)
        with _temporary(path.parent, content, None) as temporary:
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _require_missing(path)
                os.replace(temporary, path)
        _sync_folder(path.parent)


class AppendedFile:
    """A new file that grows by whole parts, each on the disk before :meth:`append` returns.

    A part that cannot be written completely is cut off again. Only a killed process or a power cut can leave
    an incomplete part at the end.

    Args:
        path: the file, which must not exist yet.
        content: its first part.

    Raises:
        FileExistsError: a file of that name exists.
        OSError: it cannot be written; no file of that name exists then.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        write_new(path, content)
        self._path = path
        self._end = len(content)
        self._file = path.open("ab", buffering=0)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file.closed

    def append(self, content: bytes) -> None:
        """Appends a part.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        with _naming(self._path):
            descriptor = self._file.fileno()
            self._take_back()
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except BaseException:
                # If this fails too, the next append tries again.
                with suppress(OSError):
                    self._take_back()
                raise
            self._end += len(content)

    def _take_back(self) -> None:
        """Cuts off the rest of a failed write."""
        descriptor = self._file.fileno()
        if os.fstat(descriptor).st_size > self._end:
            os.ftruncate(descriptor, self._end)

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes errors of the operating system name `path` instead of a temporary file."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: there is no folder {path.parent} to write into; make it first: "
            f"Path({os.fspath(path.parent)!r}).mkdir(parents=True)"
        ) from error
    except OSError as error:
        if error.errno is None or error.filename == os.fspath(path):
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _require_missing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@contextmanager
def _temporary(folder: Path, content: bytes, old: os.stat_result | None) -> Iterator[Path]:
    """A temporary file with this content, in `folder` so that it can be renamed there; removed at the end."""
    path = folder / f".torch_nano-{secrets.token_hex(8)}"
    # 0o666 without the umask's bits, as `open` makes files.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            if old is not None:
                # Only root may change a file's owner.
                with suppress(PermissionError):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    """Flushes a folder, with the name of a new file, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
