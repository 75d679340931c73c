"""Progress bars of long requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Bars:
    """Shows progress bars.

    Args:
        shown: None: on a terminal.
        console: where; standard error unless given.
    """

    def __init__(self, shown: bool | None, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self.shown = self._console.is_terminal if shown is None else shown

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a bar while the block runs; yields a function that advances it.

        >>> import io
        >>> progress = Bars(True, Console(file=io.StringIO(), force_terminal=True))
        >>> with progress.bar("learn", 3) as advance:
        ...     advance(3)
        >>> "3/3" in progress._console.file.getvalue()
        True
        """
        if not self.shown or total == 0:
            yield lambda count: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with RichProgress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.advance(task, count)
