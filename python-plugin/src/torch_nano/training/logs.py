"""Callbacks of :func:`.fit.fit` that log each epoch: to a CSV file, or to TensorBoard and the like."""

from __future__ import annotations

import csv
import io
from os import PathLike
from typing import Any, Protocol

from ..arguments import path_of, shown
from ..errors import FitError
from ..files.writing import write_file
from .history import METRICS, EpochRecord, History


class ScalarWriter(Protocol):
    """What takes figures by name and epoch: `torch.utils.tensorboard.SummaryWriter`, and most trackers'."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Takes one figure."""


class CsvLog:
    """Writes the history so far to a CSV file after every epoch: a line per epoch, a column per figure.

    The file is replaced as a whole, so readers see whole epochs; one that is there is overwritten.

    Args:
        path: the file.

    Raises:
        InputError: `path` is no path.
        OSError: after an epoch: the file cannot be written.

    >>> import tempfile, pathlib, torch
    >>> from torch_nano.training import fit
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> file = pathlib.Path(tempfile.mkdtemp(), "log.csv")
    >>> _ = fit(torch.nn.Linear(4, 3), (x, y), epochs=2, callbacks=[CsvLog(file)], progress=False)
    >>> len(file.read_text().splitlines()), file.read_text()[:20]
    (3, 'epoch,loss,accuracy,')
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path_of("path", path)

    def __call__(self, epoch: int, history: History) -> None:
        """Called by fit."""
        rows = [_figures(record) for record in history]
        # An epoch may have frozen a group: its column stays, and is empty.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path, text.getvalue().encode())


class ScalarLog:
    """Gives the figures of every epoch to a writer, such as TensorBoard's.

    Args:
        writer: anything with `add_scalar(name, value, epoch)`.

    Raises:
        FitError: it has no such method.

    >>> class Printer:
    ...     def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
    ...         print(global_step, tag, scalar_value)
    >>> ScalarLog(Printer())(1, History([EpochRecord(1, 0.5, None, None, None, {"all": 0.1}, 1.5)]))
    1 loss 0.5
    1 learning_rate all 0.1
    1 seconds 1.5
    """

    def __init__(self, writer: ScalarWriter) -> None:
        if not callable(getattr(writer, "add_scalar", None)):
            raise FitError(
                f"writer is {shown(writer)}; expected one with add_scalar(name, value, epoch), such as "
                "torch.utils.tensorboard.SummaryWriter()"
            )
        self.writer = writer

    def __call__(self, epoch: int, history: History) -> None:
        """Called by fit."""
        for name, value in _figures(history[-1]).items():
            if name != "epoch":
                self.writer.add_scalar(name, value, epoch)


def _figures(record: EpochRecord) -> dict[str, float]:
    """The figures of an epoch that were taken, by name."""
    metrics = {name: getattr(record, name) for name in METRICS}
    return {
        "epoch": record.epoch,
        **{name: value for name, value in metrics.items() if value is not None},
        **{f"learning_rate {name}": rate for name, rate in record.learning_rates.items()},
        "seconds": record.seconds,
    }
