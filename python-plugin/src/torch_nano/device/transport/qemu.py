"""The emulated rv32imc board: QEMU's `virt` machine as a byte stream, with a model image in its flash."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from ...arguments import bytes_of, path_of, seconds, shown
from ...errors import BoardError, BoardStopped, BoardTimeout, CycleModelError, InputError
from ...files.reading import read_file, refusing
from ...files.writing import write_new
from .cycles import Counts, CycleModel
from .interrupts import deferred_interrupt
from .lifetime import start
from .recorded_sensor import RecordedSensor, require_fit

_QEMU = "qemu-system-riscv32"
_ELF = Path(__file__).parents[1] / "virt-rv32imc.elf"
#: The program of a board that senses by itself.
_SENSING_ELF = _ELF.with_name("sensing-rv32imc.elf")
# Type and flags of the ELF program headers of code and constants, and of the one that says where the board
# expects the image (esp32-app/virt/virt.ld).
_CODE_HEADER, _IMAGE_HEADER = (1, 5), (0x6E616E6F, 4)
_MEMORY_START = 0x8000_0000
# The flash bank for saves and updates (esp32-app/virt/src/flash.rs). QEMU's banks have this many bytes, and
# want all of them.
_FLASH_START = 0x2200_0000
_FLASH_LENGTH = 32 << 20
_FLASH_IN_USE = 1 << 20
_KEPT_OUTPUT = 1000


class QemuBoard:
    """An emulated rv32imc board that runs from construction to `close`, at most as long as this process; a
    context manager.

    Args:
        image: the contents of its flash, at most 16 MiB.
        flash: a file for the board's saves, created if it is missing. A board that is killed leaves in it
            what it had written so far. None: the saves are lost with the board.
        timeout: seconds that one `read` or `write` may wait. May be set at any time.
        chip: the name of a chip whose cycles are counted with its cycle model (:meth:`counts`), as if code
            and image, also an update of it, were in its flash.
        sensor: a recorded sensor: the board then runs the program that senses and learns by itself, and
            answers requests between samples. Its time is the number of its instructions; time in which it
            sleeps is skipped. None: the program that only answers requests.

    Raises:
        InputError: the sensor is not recorded, or does not fit the model; the image is not bytes, or the
            time-out not a time.
        FileFormatError: a sensor comes with what is no model.
        ChipError: there is no such chip, or what its cycles cost is not known.
        BoardError: QEMU or the board's program is missing, or cannot be started; the image is too large; the
            file is not a flash.
        CycleModelError: QEMU cannot load the cycle model.
        BoardStopped, BoardTimeout: the board does not start.

    The board's instruction counter is exact: the same input gives the same counts on every run.

    >>> from torch_nano.errors import BoardError
    >>> from torch_nano.device.transport.qemu import QemuBoard
    >>> try:
    ...     QemuBoard(bytes(16 * 1024 * 1024 + 1))
    ... except BoardError as error:
    ...     print(error)
    the image has 16777217 bytes; the emulated board's flash has 16777216
    """

    def __init__(
        self,
        image: bytes,
        *,
        flash: str | Path | None = None,
        timeout: float = 60.0,
        chip: str | None = None,
        sensor: RecordedSensor | None = None,
    ) -> None:
        image, self.timeout = bytes_of(image), seconds("timeout", timeout)
        self._owner, self._closed = os.getpid(), False
        qemu = shutil.which(_QEMU)
        if qemu is None:
            raise BoardError(
                f"{_QEMU} is missing. On Debian or Ubuntu: apt-get install qemu-system-misc, since Debian 13 "
                "qemu-system-riscv"
            )
        elf, what = _ELF, "the image has"
        if sensor is not None:
            if not isinstance(sensor, RecordedSensor):
                raise InputError(f"sensor is {shown(sensor)}; expected a RecordedSensor, or None")
            require_fit(sensor, image)
            elf, what, image = _SENSING_ELF, "image and recorded sensor have", image + sensor.encoded
        (code_start, code_length), (image_start, image_room) = _places(elf)
        if len(image) > image_room:
            raise BoardError(f"{what} {len(image)} bytes; the emulated board's flash has {image_room}")
        self._cycles = None if chip is None else CycleModel(chip)
        bank = _blank_bank() if flash is None else _bank(path_of("flash", flash))

        self._socket, board_socket = socket.socketpair()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115, closed by _stop
        with board_socket, tempfile.TemporaryFile() as image_file, bank:
            image_file.write(image)
            image_file.flush()
            files = (board_socket.fileno(), image_file.fileno(), bank.fileno())
            memory = (image_start + image_room - _MEMORY_START) >> 20
            options = [*_options(elf, files, image_start), *self._memory(memory)]
            inherited = [*files]
            if self._cycles is not None:
                program = [(code_start, code_length), (image_start, image_room)]
                options += self._cycles.options([*program, (_FLASH_START, _FLASH_LENGTH)])
                inherited += [self._cycles.file]
            # Ctrl-C waits until the started process has its finalizer.
            with deferred_interrupt():
                try:
                    self._process = start(
                        [qemu, *options],
                        stdin=subprocess.DEVNULL,
                        stdout=self._messages,
                        stderr=self._messages,
                        pass_fds=inherited,
                    )
                except OSError as error:
                    raise BoardError(f"{qemu} cannot be started: {error}") from error
                # Also called when the object is collected and when Python ends: no emulator outlives its
                # owner.
                self._stop = weakref.finalize(
                    self, _stop, self._owner, self._process, self._socket, self._messages, self._cycles
                )
        #: Held while the socket is used; :meth:`close` interrupts the holder.
        self._lock = threading.RLock()
        if self._cycles is not None:
            self._wait_for(self._cycles)

    def read(self, size: int) -> bytes:
        """Waits for output; returns 1 to `size` bytes.

        Raises:
            BoardTimeout: nothing came within `timeout` seconds.
            BoardStopped: the board has ended and everything it sent has been read.
            BoardError: the board was closed, or belongs to another process.
        """
        with self._exchange("send anything"):
            received = self._socket.recv(size)
            if not received:
                raise self._stopped()
            return received

    def write(self, data: bytes) -> None:
        """Sends all of `data`.

        The board accepts bytes only while it waits for them; some 100 kB are buffered in between.

        Raises:
            BoardTimeout: the board did not take them within `timeout` seconds.
            BoardStopped: the board has ended.
            BoardError: the board was closed, or belongs to another process.
        """
        with self._exchange("take what was written"):
            self._socket.sendall(data)

    @property
    def last_output(self) -> str:
        """The end of the text that the board and QEMU have printed, as for panics and traps; not the stream.

        Raises:
            BoardError: the board was closed.
        """
        self._require_open()
        file = self._messages.fileno()
        # Without a seek, which would move the place where QEMU writes.
        start = max(os.fstat(file).st_size - _KEPT_OUTPUT, 0)
        return os.pread(file, _KEPT_OUTPUT, start).decode("ascii", "backslashreplace")

    def counts(self) -> list[Counts]:
        """What the chip's cycle model had counted each time the board's program read its counter, in order.

        The program reads it before and after each layer of a request to profile, each run, and each step of
        learning. The cycles in between are the same on every run if :meth:`restart_counts` leaves out the
        time before.

        Raises:
            BoardError: the board counts no cycles, as it was given no chip; or it was closed.
        """
        return self._cycle_model().counts()

    def restart_counts(self) -> None:
        """Drops the counts so far. What the program executes until it next reads its counter is left out, as
        if it were not executed: how long it waits for a request is not the same on every run.

        Raises:
            BoardError: the board counts no cycles, as it was given no chip; or it was closed.
        """
        self._cycle_model().restart()

    def _memory(self, mebibytes: int) -> list[str]:
        """QEMU's options of the board's RAM."""
        return ["-m", f"{mebibytes}M"]

    def _cycle_model(self) -> CycleModel:
        self._require_open()
        if self._cycles is None:
            raise BoardError("the board counts no cycles: QemuBoard(image, chip='esp32c3') does")
        return self._cycles

    def close(self) -> None:
        """Switches the board off; a `read` or `write` in another thread raises BoardError. May be called
        twice.
        """
        self._closed = True
        if os.getpid() != self._owner:
            self._stop()
            return
        self._process.kill()
        with suppress(OSError):  # closed, or the other end has gone
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _exchange(self, action: str) -> Iterator[None]:
        """Lends the socket for one call; its errors become those of a board that did not `action`."""
        self._require_owner()
        with self._lock:
            self._require_open()
            self._socket.settimeout(self.timeout)
            try:
                yield
            except TimeoutError:
                raise BoardTimeout(action, self.timeout, self.last_output) from None
            except (BrokenPipeError, ConnectionResetError):
                raise self._stopped() from None

    def _wait_for(self, cycles: CycleModel) -> None:
        """Waits until QEMU has loaded the cycle model: later its failure would be a lost connection."""
        deadline = time.monotonic() + self.timeout
        while not cycles.is_loaded:
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                printed = self.last_output
                self.close()
                if ended:
                    raise CycleModelError(printed)
                raise BoardTimeout("load the cycle model", self.timeout, printed)
            time.sleep(0.001)

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise BoardError(
                f"the board belongs to process {self._owner}, from which this one was forked: start one here"
            )

    def _require_open(self) -> None:
        if self._closed:
            raise BoardError("the board was closed")

    def _stopped(self) -> BoardError:
        """Reaps a board whose stream has ended; returns the error with its last output and QEMU's."""
        self._require_open()
        exit_status = self._process.wait(timeout=self.timeout)
        printed = self.last_output
        self.close()
        return BoardStopped(exit_status, printed)


def _options(elf: Path, files: tuple[int, int, int], image_start: int) -> list[str]:
    """QEMU's options, for a program, and descriptors of the stream, the image and the flash."""
    stream, image, flash = files
    return [
        *("-machine", "virt", "-bios", "none", "-nodefaults", "-display", "none"),
        # rv32imc with memory protection, in all versions of QEMU.
        *("-cpu", "lowrisc-ibex"),
        # One instruction per nanosecond of virtual time: makes the instruction counter exact.
        *("-icount", "shift=0"),
        *("-device", "virtio-serial-device,bus=virtio-mmio-bus.0"),
        *("-chardev", f"socket,id=stream,fd={stream}"),
        *("-device", "virtserialport,nr=1,chardev=stream"),
        # Panics and traps: kept apart from the stream.
        *("-chardev", "stdio,id=text,signal=off", "-serial", "chardev:text"),
        *("-drive", f"if=pflash,unit=1,format=raw,file=/dev/fd/{flash}"),
        # Not as `-kernel`, which QEMU leaves out where there is a second flash bank.
        *("-device", f"loader,file={_escaped(elf)}"),
        *("-device", f"loader,file=/dev/fd/{image},addr={image_start:#x},force-raw=on"),
    ]


def _stop(
    owner: int,
    process: subprocess.Popen[bytes],
    stream: socket.socket,
    messages: IO[bytes],
    cycles: CycleModel | None,
) -> None:
    # A forked process has copies of the descriptors, but not the board.
    if os.getpid() == owner:
        process.kill()
        process.wait()
    stream.close()
    messages.close()
    if cycles is not None:
        cycles.close()


def _blank_bank() -> IO[bytes]:
    """An unnamed file for the flash bank of `esp32-app/virt/src/flash.rs`."""
    bank = tempfile.TemporaryFile()  # noqa: SIM115, closed by the caller
    # Erased as far as the board uses it: erasing is slow there.
    bank.write(b"\xff" * _FLASH_IN_USE)
    bank.truncate(_FLASH_LENGTH)
    return bank


def _bank(file: Path) -> IO[bytes]:
    """The file for that bank, open, and locked for as long as a process has it open."""
    try:
        if not file.exists():
            with suppress(FileExistsError):  # another board has just made it
                write_new(file, b"\xff" * _FLASH_LENGTH)  # erased
        bank = file.open("r+b")
    except OSError as error:
        raise BoardError(f"the flash file {file} cannot be opened or made: {error.strerror}") from error
    size = file.stat().st_size
    try:
        if size != _FLASH_LENGTH:
            raise BoardError(f"{file} has {size} bytes; a file for the board's flash has {_FLASH_LENGTH}")
        # QEMU lets two boards write to one flash bank.
        fcntl.flock(bank, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        bank.close()
        raise BoardError(f"another board uses the flash file {file}: give each its own") from error
    except BoardError:
        bank.close()
        raise
    return bank


def _escaped(file: Path) -> str:
    """A path as a value of QEMU's options, in which commas are doubled."""
    return str(file).replace(",", ",,")


def _places(elf: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Address and size of the program's code and constants, and of the flash for the image, from the headers
    of the ELF file.
    """
    if not elf.is_file():
        raise BoardError(f"the board's program {elf} is missing. In a checkout of torch-nano: just setup")
    program = read_file(elf, BoardError)
    places = {}
    with refusing(BoardError, f"{elf} is not the board's program"):
        (offset,) = struct.unpack_from("<I", program, 28)
        entry_size, entries = struct.unpack_from("<HH", program, 42)
        for index in range(entries):
            kind, _, address, _, _, size, flags = struct.unpack_from(
                "<7I", program, offset + index * entry_size
            )
            places[kind, flags] = address, size
        return places[_CODE_HEADER], places[_IMAGE_HEADER]
