"""What an example prints, as a terminal of 80 columns shows it."""

import io
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

Result = TypeVar("Result")


def printed(print_result: Callable[[Result, Console], None], result: Result) -> str:
    """The text `print_result` prints; nothing of it is cut off."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        print_result(result, console)
    text = capture.get()
    assert "…" not in text, text
    return text
