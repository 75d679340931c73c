"""Writes that fail, and writes that are cut short: the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from files_at_risk import killed_at_each_step, small_disk, small_files
from torch_nano.files.writing import AppendedFile, write_file, write_new

OLD, NEW = b"old" * 1000, b"new" * 30_000


def left(folder: Path) -> list[str]:
    """What is in a folder, without what a killed process may leave."""
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith(".torch_nano-"))


def test_a_killed_process_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    seen = []
    file.write_bytes(OLD)
    for _ in killed_at_each_step(lambda: write_file(file, NEW)):
        seen.append(file.read_bytes())
        assert seen[-1] in (OLD, NEW) and left(tmp_path) == ["file"]
        file.write_bytes(OLD)
    assert file.read_bytes() == NEW and seen.count(OLD) > 8 and seen.count(NEW) > 2


def test_a_killed_process_leaves_no_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    seen = []
    for _ in killed_at_each_step(lambda: write_new(file, NEW)):
        seen.append(file.exists())
        assert left(tmp_path) == ["file"] * seen[-1] and (not seen[-1] or file.read_bytes() == NEW)
        file.unlink(missing_ok=True)
    assert file.read_bytes() == NEW and seen.count(False) > 6 and seen.count(True) > 2


def test_a_killed_process_leaves_whole_lines_and_the_start_of_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    parts = [b"line %d\n" % line for line in range(4)]
    whole = b"".join(parts)
    lengths = set()

    def append() -> None:
        with AppendedFile(file, parts[0]) as lines:
            for part in parts[1:]:
                lines.append(part)

    for _ in killed_at_each_step(append):
        content = file.read_bytes() if file.exists() else b""
        assert whole.startswith(content) and (not content or b"\n" in content)
        lengths.add(len(content))
        file.unlink(missing_ok=True)
    assert len(lengths) >= 7, "no half line was ever seen"


@pytest.mark.parametrize("write", [write_file, write_new])
def test_a_full_disk_changes_nothing(write: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    file = tmp_path / "file"
    if write is write_file:
        file.write_bytes(OLD)
    with small_files(len(NEW) - 1), pytest.raises(OSError, match=f"'{file}'") as caught:
        write(file, NEW)
    assert caught.value.errno == errno.EFBIG
    assert [other.name for other in tmp_path.iterdir()] == ["file"] * (write is write_file)
    assert write is write_new or file.read_bytes() == OLD
    write(file, NEW)
    assert file.read_bytes() == NEW


def test_a_disk_without_room_keeps_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 << 10) as mounted:
        if not mounted:
            pytest.skip("only root can make a small disk; the tests with a limit of files have run")
        (tmp_path / "old").write_bytes(OLD)
        for write, name in ((write_file, "old"), (write_file, "other"), (write_new, "new")):
            with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / name}'"):
                write(tmp_path / name, NEW)
        assert [file.name for file in tmp_path.iterdir()] == ["old"]
        assert (tmp_path / "old").read_bytes() == OLD
        with AppendedFile(tmp_path / "lines", b"first\n") as lines:
            with pytest.raises(OSError, match="No space left on device"):
                lines.append(b"x" * (1 << 20) + b"\n")
            assert (tmp_path / "lines").read_bytes() == b"first\n"
            lines.append(b"second\n")
        assert (tmp_path / "lines").read_bytes() == b"first\nsecond\n"


def test_a_failed_part_is_cut_off_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lines"

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    with AppendedFile(file, b"first\n") as lines:
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", fail)
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="Input/output error"):
                lines.append(b"second\n")
            assert file.read_bytes() == b"first\nsecond\n"
            with pytest.raises(OSError, match="Input/output error"):
                lines.append(b"third\n")
        lines.append(b"fourth\n")
    assert file.read_bytes() == b"first\nfourth\n"


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    old, link = tmp_path / "old", tmp_path / "link"
    old.write_bytes(OLD)
    old.chmod(0o640)
    link.symlink_to("old")
    write_file(link, NEW)
    assert link.is_symlink() and old.read_bytes() == NEW and stat.S_IMODE(old.stat().st_mode) == 0o640
    with pytest.raises(FileExistsError):
        write_new(link, OLD)
    dangling = tmp_path / "dangling"
    dangling.symlink_to("made")
    with pytest.raises(FileExistsError):
        write_new(dangling, NEW)
    write_file(dangling, NEW)
    assert dangling.is_symlink() and (tmp_path / "made").read_bytes() == NEW
    before = os.umask(0o027)
    try:
        for write, name in ((write_file, "a"), (write_new, "b")):
            write(tmp_path / name, NEW)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_file_that_must_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write all
    with pytest.raises(PermissionError, match=f"Permission denied: '{file}'"):
        write_file(file, NEW)
    assert file.read_bytes() == OLD


def test_devices_and_pipes_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, NEW)
    reader.join()
    assert read == [NEW] and stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_file(Path("/dev/full"), NEW)
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_file(tmp_path, NEW)
    with pytest.raises(FileNotFoundError, match="no/such/file"):
        write_file(tmp_path / "no" / "such" / "file", NEW)


def test_without_hard_links_a_file_is_still_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "link", no_links)
    write_new(tmp_path / "a", NEW)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", OLD)
    assert (tmp_path / "a").read_bytes() == NEW and len(list(tmp_path.iterdir())) == 1


def test_many_threads_write_one_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = [bytes([number]) * 50_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(file, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_bytes() in contents and left(tmp_path) == ["file"]


def test_the_longest_file_name_is_written(tmp_path: Path) -> None:
    write_file(tmp_path / ("n" * 255), NEW)
    write_new(tmp_path / ("m" * 255), NEW)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("write", [write_file, write_new])
def test_a_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut takes: all that was not synchronized, in any order."""
    steps: list[tuple[str, int, int]] = []

    def synchronize(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        real(descriptor)
        status = os.fstat(descriptor)
        steps.append(("sync", status.st_ino, status.st_size))

    def named(real: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def name(source: Path, target: Path) -> None:
            status = source.stat()
            steps.append(("name", status.st_ino, status.st_size))
            real(source, target)

        return name

    monkeypatch.setattr(os, "fsync", synchronize)
    for call in ("replace", "link"):
        monkeypatch.setattr(os, call, named(getattr(os, call)))
    write(tmp_path / "file", NEW)
    file, folder = (tmp_path / "file").stat(), tmp_path.stat()
    content = (file.st_ino, len(NEW))
    assert [step[:2] for step in steps] == [
        ("sync", file.st_ino),
        ("name", file.st_ino),
        ("sync", folder.st_ino),
    ]
    assert [step[1:] for step in steps[:2]] == [content, content]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(OLD)
    os.chown(file, 12_345, 23_456)
    write_file(file, NEW)
    status = file.stat()
    assert (status.st_uid, status.st_gid, file.read_bytes()) == (12_345, 23_456, NEW)


def test_a_file_that_another_process_makes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"

    def synchronize(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        real(descriptor)
        file.write_bytes(OLD)

    monkeypatch.setattr(os, "fsync", synchronize)
    with pytest.raises(FileExistsError):
        write_new(file, NEW)
    assert file.read_bytes() == OLD and left(tmp_path) == ["file"]
