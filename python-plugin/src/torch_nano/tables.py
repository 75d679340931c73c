"""Tables of results: plain text for consoles, HTML for notebooks and pages."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from html import escape

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

#: Wider than any line: a table is never wrapped.
_WIDEST = 10_000


@dataclass
class Table:
    """Rows under headers, with notes below; prints as text.

    >>> table = Table(("layer", "", "bytes"), title="net", numbers=[2], notes=["2 layers"])
    >>> table.add("conv", "first", "12")
    >>> print(table)
    net
    layer         bytes
    ───────────────────
    conv   first     12
    2 layers
    >>> table.html()[:39]
    '<table><caption>net</caption><thead><tr'
    """

    #: A line break in a header is one in the text, too.
    headers: Sequence[str]
    title: str = ""
    #: The columns that hold numbers: they are aligned to the right.
    numbers: Collection[int] = ()
    #: Lines below the table.
    notes: list[str] = field(default_factory=list)
    #: The rows; None is a line between two parts.
    rows: list[Sequence[str] | None] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Adds a row; cells that are missing at its end are empty."""
        self.rows.append([*cells, *[""] * (len(self.headers) - len(cells))])

    def add_line(self) -> None:
        """Adds a line between the rows before and those after."""
        self.rows.append(None)

    def __str__(self) -> str:
        table = RichTable(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for index, header in enumerate(self.headers):
            table.add_column(header, justify="right" if index in self.numbers else "left", no_wrap=True)
        for row in self.rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*map(Text, row))
        text = io.StringIO()
        # Plain text wherever it is shown, in a notebook too.
        Console(file=text, width=_WIDEST, force_terminal=False, force_jupyter=False).print(table)
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        return "\n".join([*[self.title] * bool(self.title), *(line for line in lines if line), *self.notes])

    def html(self) -> str:
        """The table as HTML, without a style of its own."""
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head = "".join(self._cell("th", index, header) for index, header in enumerate(self.headers))
        parts: list[list[str]] = [[]]
        for row in self.rows:
            if row is None:
                parts.append([])
            else:
                cells = "".join(self._cell("td", index, cell) for index, cell in enumerate(row))
                parts[-1].append(f"<tr>{cells}</tr>")
        body = "".join(f"<tbody>{''.join(rows)}</tbody>" for rows in parts)
        table = f"<table>{caption}<thead><tr>{head}</tr></thead>{body}</table>"
        return table + "".join(f"<p>{escape(note)}</p>" for note in self.notes)

    def _cell(self, tag: str, column: int, text: str) -> str:
        aligned = ' style="text-align:right"' if column in self.numbers else ' style="text-align:left"'
        return f"<{tag}{aligned}>{escape(text).replace(chr(10), '<br>')}</{tag}>"


def preformatted(text: str) -> str:
    """Lines of text as HTML."""
    return f"<pre>{escape(text)}</pre>"


def paragraph(text: str) -> str:
    """A text as HTML."""
    return f"<p>{escape(text)}</p>"
