"""The cycle model of a chip: a plugin of QEMU (``python-plugin/cycles``) that counts while a board runs."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from ...chips import Chip, chip, chips
from ...errors import ChipError, ConnectionFailed

_PLUGIN = Path(__file__).with_name("cycles_plugin.abi3.so")


@dataclass(frozen=True)
class Counts:
    """What a chip's cycle model has counted.

    >>> Counts(900, 1200, 3, 1, 50, 20, 0, 0, 110) - Counts(100, 200, 1, 0, 10, 5, 0, 0, 10)
    Counts(instructions=800, cycles=1000, data_lines=2, code_lines=1, load_use_stalls=40, taken_branches=15,
    high_multiplies=0, divides=0, flash_cycles=100)
    """

    instructions: int
    cycles: int
    #: Lines of constants that were read from the flash, as they were not in the cache.
    data_lines: int
    #: Lines of code that were read from the flash.
    code_lines: int
    #: Instructions that waited for what the instruction before them loaded.
    load_use_stalls: int
    taken_branches: int
    #: Multiplications that return the high word.
    high_multiplies: int
    divides: int
    #: Cycles in which the core waited for the flash.
    flash_cycles: int

    @property
    def flash_lines(self) -> int:
        """Lines that were read from the flash, of constants and of code."""
        return self.data_lines + self.code_lines

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


#: The sum of no counts.
ZERO = Counts(0, 0, 0, 0, 0, 0, 0, 0, 0)


class CycleModel:
    """The cycle model of a chip for one board, and the file to which it writes.

    Args:
        name: the chip's.

    Raises:
        ChipError: there is no such chip, or its costs are not known.
        ConnectionFailed: the plugin is missing.
    """

    def __init__(self, name: str) -> None:
        self.chip = chip_with_costs(name)
        if not _PLUGIN.is_file():
            raise ConnectionFailed(
                f"the cycle model {_PLUGIN} is missing. In a checkout of torch-nano: just setup"
            )
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`

    @property
    def file(self) -> int:
        """The descriptor that QEMU must inherit."""
        return self._file.fileno()

    def options(self, flash: Iterable[tuple[int, int]]) -> list[str]:
        """QEMU's options.

        Args:
            flash: address and length of what the chip would have in flash; all else is in RAM.
        """
        costs, cache = self.chip.costs, self.chip.cache
        assert costs is not None, "chip_with_costs returns no other"
        arguments = asdict(costs)
        del arguments["source"]
        arguments |= {"cache": cache.bytes, "ways": cache.ways, "line": cache.line}
        arguments["out"] = f"/dev/fd/{self.file}"
        settings = [f"{name}={value}" for name, value in arguments.items()]
        settings += [f"flash={first}:{length}" for first, length in flash]
        # QEMU takes two commas in a value as one.
        plugin = str(_PLUGIN).replace(",", ",,")
        return ["-plugin", ",".join([f"file={plugin}", *settings])]

    def restart(self) -> None:
        """Drops the counts so far, and leaves out what the program executes until it reads its counter again,
        as if it were not executed: how long it waits for a request is not the same on every run.
        """
        os.ftruncate(self.file, 0)

    def counts(self) -> list[Counts]:
        """The counts at each time at which the program has read its instruction counter, in order."""
        size = os.fstat(self.file).st_size
        rows = csv.DictReader(io.StringIO(os.pread(self.file, size, 0).decode("ascii")))
        return [Counts(**{name: int(value) for name, value in row.items()}) for row in rows]

    @property
    def is_loaded(self) -> bool:
        """Whether QEMU has loaded the plugin."""
        return os.fstat(self.file).st_size > 0

    def close(self) -> None:
        """Closes the file; its counts are lost."""
        self._file.close()


def chip_with_costs(name: str) -> Chip:
    """The chip of a name.

    Raises:
        ChipError: there is no such chip, or its costs are not known.

    >>> chip_with_costs("esp32p4")
    Traceback (most recent call last):
    torch_nano.errors.ChipError: the cycles of esp32p4 are not known: nobody has measured what its
    instructions and its flash cost; chips with known costs: esp32c3
    """
    found = chip(name)
    if found.costs is None:
        known = ", ".join(each.name for each in chips().values() if each.costs is not None)
        raise ChipError(
            f"the cycles of {found.name} are not known: nobody has measured what its instructions and its "
            f"flash cost; chips with known costs: {known}"
        )
    return found
