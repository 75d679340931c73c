"""CSV files in UTF-8: a line of names, then rows."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import TorchNanoError

#: The column with the label; in archives the array of labels where an input is called `y`.
LABEL = "label"
_DELIMITERS = ",;\t"
#: Characters of a field, and number of names, that messages show.
_SHOWN, _SHOWN_NAMES = 40, 6


@dataclass(frozen=True)
class CsvTable:
    """The rows of a file as texts."""

    path: Path
    names: list[str]
    #: The line, and a field for each name.
    rows: list[tuple[int, list[str]]]
    delimiter: str
    #: What it raises.
    error: type[TorchNanoError]

    def place(self, line: int) -> str:
        """The position of a line, for messages."""
        return f"{self.path}, line {line}"

    def number(self, line: int, field: str) -> float:
        """A field as a number, NaN and infinity included.

        Raises:
            TorchNanoError: of kind `error`: it is no number.
        """
        try:
            return float(field)
        except ValueError:
            hint = ": decimals take a point" if "," in field and self.delimiter != "," else ""
            if field.strip() and LABEL not in self.names and not hint:
                hint = f"; of a label, line 1 must call its column `{LABEL}`"
            raise self.error(f"{self.place(line)}: {_short(field)} is no number{hint}") from None


def number_of(place: str, field: str, error: type[TorchNanoError]) -> float:
    """A text as a number, NaN and infinity included.

    Raises:
        TorchNanoError: of kind `error`: it is no number.
    """
    try:
        return float(field)
    except ValueError:
        raise error(f"{place}: {_short(field)} is no number") from None


def read_csv(path: Path, content: bytes, error: type[TorchNanoError]) -> CsvTable:
    """Reads a file's content: commas, semicolons or tabs between columns.

    >>> table = read_csv(Path("a.csv"), b"label;x\\nwalk;1.5\\n", TorchNanoError)
    >>> table.names, table.rows, table.number(2, "1.5")
    (['label', 'x'], [(2, ['walk', '1.5'])], 1.5)

    Raises:
        TorchNanoError: of kind `error`: it is no such table.
    """
    text = _text(path, content, error)
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows: list[tuple[int, list[str]]] = []
    try:
        names = _names(path, next(reader, []), error)
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise error(
                    f"{path}, line {reader.line_num} has {len(row)} fields; expected {len(names)}, one for "
                    "each name"
                )
            rows.append((reader.line_num, row))
    except csv.Error as raised:
        raise error(f"{path}, line {reader.line_num}: {raised}; is a quotation mark missing?") from raised
    return CsvTable(path, names, rows, delimiter, error)


def _text(path: Path, content: bytes, error: type[TorchNanoError]) -> str:
    """A file's text, without Excel's byte order mark."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as raised:
        raise error(
            f"{path} is no UTF-8 text (its byte {raised.start} is {content[raised.start]:#04x}); save it as "
            "UTF-8, in Excel as 'CSV UTF-8'"
        ) from raised
    if "\0" in text:
        raise error(f"{path} has bytes of 0, which no UTF-8 text has; save it as UTF-8")
    return text


def _names(path: Path, first: list[str], error: type[TorchNanoError]) -> list[str]:
    """The names of the columns."""
    names = [name.strip() for name in first]
    # Whole numbers may be names: pandas numbers columns without names.
    if LABEL not in names and any(_is_number(name) and not name.isdecimal() for name in names):
        raise error(
            f"{path}, line 1 has {listed(names)}, which is a sample; expected the columns' names before it, "
            f"`{LABEL}` for that of the labels"
        )
    for name, following in pairwise(sorted(names)):
        if name == following:
            raise error(f"{path} has two columns called {_short(name)}; expected different names")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def listed(names: list[Any]) -> str:
    """The first names, for messages.

    >>> listed(["a", "b"]), listed(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, f, ...')
    """
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
