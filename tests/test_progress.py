"""Progress bars of work on samples."""

import io

import pytest
from rich.console import Console
from torch_nano import progress
from torch_nano.progress import progress_of


def shown(monkeypatch: pytest.MonkeyPatch, seconds: float, *, terminal: bool) -> str:
    """What 4 samples show that take so long each."""
    text, now = io.StringIO(), [0.0]
    console = Console(file=text, force_terminal=terminal, width=80)
    monkeypatch.setattr(progress, "Console", lambda: console)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress_of("calibration", 4) as advance:
        for _ in range(4):
            now[0] += seconds
            advance(1)
    return text.getvalue()


def test_work_of_more_than_two_seconds_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 1.0, terminal=True)
    assert "calibration" in text and "4/4" in text


@pytest.mark.parametrize("seconds,terminal", [(0.4, True), (1.0, False)])
def test_short_work_and_files_have_none(
    monkeypatch: pytest.MonkeyPatch, seconds: float, terminal: bool
) -> None:
    assert shown(monkeypatch, seconds, terminal=terminal) == ""


def test_a_failure_ends_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True)
    monkeypatch.setattr(progress, "Console", lambda: console)
    monkeypatch.setattr(progress, "_SHOWN_AFTER", 0.0)
    with pytest.raises(ValueError, match="stop"), progress_of("check", None) as advance:
        advance(1)
        raise ValueError("stop")
    # The cursor is hidden while the bar is drawn.
    assert "\x1b[?25l" in text.getvalue() and "\x1b[?25h" in text.getvalue()
