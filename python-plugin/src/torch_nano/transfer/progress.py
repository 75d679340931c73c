"""How a training shows itself: a bar while an epoch runs, and a line for every epoch."""

from __future__ import annotations

import importlib.util
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .history import METRICS, EpochRecord, History, format_metric

#: Seconds between two updates of the bar.
_INTERVAL = 0.1


class TrainingProgress:
    """Shows a training on the console: a bar where it can be drawn over, a line per epoch everywhere.

    Args:
        epochs: of the whole training.
        batches: of one epoch, training and validation.
        shown: False: nothing at all is shown.
    """

    def __init__(self, *, epochs: int, batches: int, shown: bool, console: Console | None = None) -> None:
        self._epochs = epochs
        self._console = (console or Console()) if shown else None
        self._bar = self._make_bar() if self._console else None
        self._task = self._bar.add_task("", total=batches, loss="") if self._bar else None
        self._next_update = 0.0

    def _make_bar(self) -> Progress | None:
        assert self._console is not None
        # In a notebook rich draws over its own output with ipywidgets only.
        alive = self._console.is_terminal and not self._console.is_dumb_terminal
        if self._console.is_jupyter:
            alive = importlib.util.find_spec("ipywidgets") is not None
        if not alive:
            return None
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> TrainingProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start_epoch(self, epoch: int) -> None:
        """The bar of the next epoch."""
        if self._bar and self._task is not None:
            description = f"epoch {epoch:>{len(str(self._epochs - 1))}}"
            self._bar.reset(self._task, description=description, loss="")

    def batch_done(self, batches: int, loss: float) -> None:
        """So many batches of the epoch are done; the mean loss so far."""
        if self._bar and self._task is not None and time.monotonic() >= self._next_update:
            self._next_update = time.monotonic() + _INTERVAL
            self._bar.update(self._task, completed=batches, loss=f"loss {loss:.4f}")

    def end_epoch(self, history: History) -> None:
        """The line of the last epoch."""
        if self._console:
            self._console.print(self._line(history[-1]), highlight=False, soft_wrap=True)
            if history.stopped:
                self._console.print(f"stopped: {history.stopped}", highlight=False, soft_wrap=True)

    def _line(self, record: EpochRecord) -> str:
        width = len(str(self._epochs - 1))
        shown = [
            f"{name} {format_metric(name, value):>6}"
            for name in METRICS
            if (value := getattr(record, name)) is not None
        ]
        rates = "/".join(f"{rate:.3g}" for rate in record.learning_rates.values())
        return "  ".join(
            [f"epoch {record.epoch:>{width}}", *shown, f"learning rate {rates}", f"{record.seconds:.1f} s"]
        )
