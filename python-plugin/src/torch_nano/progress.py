"""Progress bars on the console, where it can be redrawn."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Seconds after which work shows a bar.
_SHOWN_AFTER = 2.0
#: Seconds between two updates of a bar.
INTERVAL = 0.1


@contextmanager
def progress_of(work: str, samples: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how many samples are done, if that takes more than two seconds; on terminals only.

    Args:
        work: what is done, as the bar names it.
        samples: how many there are; None if that is unknown.

    Yields:
        A function that takes the number of samples that were done last.
    """
    console = Console()
    start, next_update, done = time.monotonic(), 0.0, 0
    bar = None if console.is_jupyter else bar_on(console)

    def advance(count: int) -> None:
        nonlocal next_update, done
        done += count
        now = time.monotonic()
        if bar is None or now < start + _SHOWN_AFTER or now < next_update:
            return
        next_update = now + INTERVAL
        if not bar.tasks:
            bar.add_task(work, total=samples, note="")
            bar.start()
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def bar_on(console: Console) -> Progress | None:
    """A bar with a field "note", or None where the console cannot be redrawn."""
    if console.is_jupyter:
        # In notebooks rich redraws its output by ipywidgets.
        alive = importlib.util.find_spec("ipywidgets") is not None
    else:
        alive = console.is_terminal and not console.is_dumb_terminal
    if not alive:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        redirect_stdout=not console.is_jupyter,
        transient=True,
    )
