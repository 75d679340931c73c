"""Time-series files: CSV with one row per time stamp.

The columns `recording` (rows of one recording follow each other), `time` (seconds, growing within a
recording), `label` (what is seen; empty: unknown) and `group` (such as the wearer) may be left out. All
others are the numbers of the sensor, in their order. `torch-nano device collect` writes such files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError
from ..files.csv_table import LABEL, CsvTable, listed, read_csv
from ..files.reading import read_file, refusing

RECORDING, TIME, GROUP = "recording", "time", "group"
#: The columns that are no numbers of the sensor, in the order in which they are written.
ABOUT = (RECORDING, TIME, LABEL, GROUP)
#: A step of this many times the usual one is a gap: a sample is missing.
_GAP = 1.5


@dataclass(frozen=True)
class Series:
    """The rows of a file. Texts are "" where a column is missing."""

    path: Path
    #: The names of the sensor's numbers.
    channels: tuple[str, ...]
    #: float32 [rows, channels].
    values: NDArray[np.float32]
    recordings: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    #: Whether a row does not follow the one before it: bool [rows].
    starts: NDArray[np.bool_]
    #: Whether the file has a column of labels.
    has_labels: bool

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)


def read_series(path: Path) -> Series:
    """Reads a time-series file.

    Raises:
        FileFormatError: it is no such file; the message says where.
        OSError: it cannot be read.
    """
    content = read_file(path)
    with refusing(FileFormatError, str(path)):
        table = read_csv(path, content, FileFormatError)
        return _series(table)


def _series(table: CsvTable) -> Series:
    channels = tuple(name for name in table.names if name not in ABOUT)
    if not channels:
        raise FileFormatError(
            f"{table.path} has the columns {listed(table.names) or 'none'}; expected one for each number of "
            f"the sensor, beside {listed(list(ABOUT))}"
        )
    if not table.rows:
        raise FileFormatError(f"{table.path} has no row; expected one for each time stamp")
    places = [table.names.index(name) for name in channels]
    numbers = [[table.number(line, row[place]) for place in places] for line, row in table.rows]
    with np.errstate(over="ignore"):  # to infinity, which is refused
        values = np.array(numbers, np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        place = table.place(table.rows[int(finite.argmin())][0])
        raise FileFormatError(f"{place} has NaN or infinity; expected finite numbers")
    recordings, labels, groups = (_texts(table, name) for name in (RECORDING, LABEL, GROUP))
    starts = np.array([True, *(one != before for before, one in pairwise(recordings))])
    if TIME in table.names:
        starts |= _gaps(table, starts)
    return Series(table.path, channels, values, recordings, labels, groups, starts, LABEL in table.names)


def _texts(table: CsvTable, name: str) -> tuple[str, ...]:
    if name not in table.names:
        return ("",) * len(table.rows)
    place = table.names.index(name)
    return tuple(row[place].strip() for _, row in table.rows)


def _gaps(table: CsvTable, starts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether more time has passed since the row before than usually."""
    place = table.names.index(TIME)
    times = np.array([table.number(line, row[place]) for line, row in table.rows])
    steps = np.diff(times, prepend=times[0])
    inside = ~starts
    backwards = inside & ~(steps > 0)
    if backwards.any():
        row = int(backwards.argmax())
        raise FileFormatError(
            f"{table.place(table.rows[row][0])}: the time is {times[row]:g}, after {times[row - 1]:g}; "
            f"expected a growing one. Another recording has another text in the column `{RECORDING}`"
        )
    if not inside.any():
        return np.zeros(len(times), np.bool_)
    late: NDArray[np.bool_] = steps > _GAP * np.median(steps[inside])
    return inside & late


def header(channels: Sequence[str]) -> bytes:
    """The first line of a file with all columns.

    >>> header(["ax", "ay"])
    b'recording,time,label,group,ax,ay\\n'
    """
    return _line([*ABOUT, *channels])


def row(recording: str, time: float, label: str, group: str, values: Iterable[float]) -> bytes:
    """A line of a file with all columns.

    >>> row("1", 0.5, "walk", "anna", np.float32([1, 0.1]))
    b'1,0.5,walk,anna,1.0,0.1\\n'
    """
    # The shortest text that is the same float32 again.
    return _line([recording, f"{time:.6g}", label, group, *(str(np.float32(value)) for value in values)])


def _line(fields: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()
