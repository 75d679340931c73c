"""Progress display of a training: a bar while an epoch runs, and a line per epoch."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from ..progress import INTERVAL, bar_on
from .history import METRICS, EpochRecord, History, format_metric


class TrainingProgress:
    """Shows a training on the console: a line per epoch, and a bar where the output can be redrawn.

    Args:
        epochs: number of epochs of the whole training.
        shown: False: shows nothing.
    """

    def __init__(self, *, epochs: int, shown: bool) -> None:
        self._epochs = epochs
        self._train_batches = 0
        self._console = Console() if shown else None
        self._bar = bar_on(self._console) if self._console else None
        if self._console and self._console.is_jupyter:
            # In notebooks plain output is one block, rich's own display a block per line.
            self._console = Console(force_jupyter=False, force_terminal=False)
        if self._bar:
            self._task = self._bar.add_task("checking the data", total=None, note="")
        self._next_update = 0.0
        self._widths: list[int] = []

    def __enter__(self) -> TrainingProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def checked(self, train_batches: int, val_batches: int) -> None:
        """Sets the numbers of batches of an epoch."""
        self._train_batches = train_batches
        if self._bar:
            self._bar.update(self._task, total=train_batches + val_batches)

    def start_epoch(self, epoch: int) -> None:
        """Starts the bar of the next epoch."""
        if self._bar:
            self._bar.reset(self._task, description=f"epoch {epoch} of {self._epochs}", note="")

    def trained(self, batches: int, loss: float) -> None:
        """Shows the number of training batches done and their mean loss."""
        self._update(batches, f"loss {format_metric('loss', loss)}")

    def validated(self, batches: int, loss: float) -> None:
        """Shows the number of validation batches done and their mean loss."""
        self._update(self._train_batches + batches, f"val_loss {format_metric('val_loss', loss)}")

    def _update(self, batches: int, loss: str) -> None:
        if self._bar and time.monotonic() >= self._next_update:
            self._next_update = time.monotonic() + INTERVAL
            self._bar.update(self._task, completed=batches, note=loss)

    def end_epoch(self, history: History) -> None:
        """Prints the line of the last epoch; before the first one the column names."""
        if not self._console:
            return
        cells = _cells(history[-1])
        if not self._widths:
            self._widths = [max(len(name), 7) for name in cells]
            self._line(list(cells))
        self._line(list(cells.values()))
        if history.stopped:
            self._console.print(f"stopped: {history.stopped}", highlight=False)

    def _line(self, cells: list[str]) -> None:
        assert self._console is not None
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
        self._console.print(line, highlight=False, soft_wrap=True)


def _cells(record: EpochRecord) -> dict[str, str]:
    """The cells of an epoch's line: column -> text."""
    metrics = {name: getattr(record, name) for name in METRICS}
    return {
        "epoch": str(record.epoch),
        **{name: format_metric(name, value) for name, value in metrics.items() if value is not None},
        "seconds": f"{record.seconds:.1f}",
        "learning rate": " ".join(f"{rate:.3g}" for rate in record.learning_rates.values()),
    }
