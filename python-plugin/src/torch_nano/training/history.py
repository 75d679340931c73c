"""History of a training: a record per epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, overload

from ..drawing import axes_to_draw_in
from ..errors import FileFormatError, InputError
from ..files.reading import fields_of
from ..tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The columns that early stopping and schedulers can monitor.
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class EpochRecord:
    """Metrics of one epoch: means over samples. Those of the training are taken while the weights change."""

    #: From 0.
    epoch: int
    loss: float
    #: Share of right classes, 0 to 1; None without integer class targets.
    accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    #: Name of the parameter group -> its learning rate in this epoch; only groups with trainable parameters.
    learning_rates: dict[str, float]
    #: Time of training and validation.
    seconds: float


@dataclass(frozen=True)
class _Values:
    """The values of :meth:`History.to_dict`."""

    monitor: str
    min_delta: float
    stopped: str
    epochs: list[Any]


class History(Sequence[EpochRecord]):
    """A sequence of :class:`EpochRecord`; indexing by a name gives a column; prints as a table.

    >>> history = History([EpochRecord(0, 0.7, None, 0.9, None, {"all": 0.1}, 1.5)])
    >>> history.append(EpochRecord(1, 0.5, None, 1.0, None, {"all": 0.1}, 1.4))
    >>> history["val_loss"], history[-1].loss, history.best_epoch, history.stopped
    ([0.9, 1.0], 0.5, 0, '')
    >>> print(history)
    epoch    loss  val_loss  seconds  learning rate
    ───────────────────────────────────────────────
      0 *  0.7000    0.9000      1.5            0.1
      1    0.5000    1.0000      1.4            0.1
    """

    #: Why the training ended before the last epoch; "" if it did not.
    stopped: str
    #: The column that decides the best epoch.
    monitor: str
    #: An epoch is better only if its value is better by more than this.
    min_delta: float

    def __init__(
        self,
        records: Sequence[EpochRecord] = (),
        *,
        monitor: str | None = None,
        min_delta: float = 0.0,
        stopped: str = "",
    ) -> None:
        self._records = list(records)
        validated = bool(self._records) and self._records[0].val_loss is not None
        self.monitor = monitor or ("val_loss" if validated else "loss")
        self.min_delta = min_delta
        self.stopped = stopped

    def append(self, record: EpochRecord) -> None:
        """Adds the record of the next epoch."""
        self._records.append(record)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self._records)

    @overload
    def __getitem__(self, key: int) -> EpochRecord: ...
    @overload
    def __getitem__(self, key: slice) -> list[EpochRecord]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> EpochRecord | list[EpochRecord] | list[Any]:
        if not isinstance(key, str):
            return self._records[key]
        columns = [field.name for field in fields(EpochRecord)]
        if key not in columns:
            raise KeyError(f"a history has no column {key!r}; it has {', '.join(map(repr, columns))}")
        return [getattr(record, key) for record in self._records]

    @property
    def best_epoch(self) -> int:
        """The last epoch whose monitored value is better than the best one before it by more than
        `min_delta`; -1 before the first.
        """
        sign = -1.0 if is_higher_better(self.monitor) else 1.0
        best, best_value = -1, float("inf")
        for epoch, value in enumerate(self[self.monitor]):
            if best < 0 or sign * value < best_value - self.min_delta:
                best, best_value = epoch, sign * value
        return best

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain Python values, as JSON can hold.

        >>> history = History([EpochRecord(0, 0.7, 0.5, None, None, {"all": 0.1}, 1.5)])
        >>> str(History.from_dict(history.to_dict())) == str(history)
        True
        """
        return {
            "monitor": self.monitor,
            "min_delta": self.min_delta,
            "stopped": self.stopped,
            "epochs": [asdict(record) for record in self._records],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: the values are not those of a history.
        """
        try:
            given = fields_of(_Values, values, "a history")
            records = [fields_of(EpochRecord, record, "an epoch") for record in given.epochs]
        except FileFormatError as error:
            raise InputError(f"not the values of a history ({error}); expected what to_dict makes") from error
        if given.monitor not in METRICS or any(getattr(one, given.monitor) is None for one in records):
            raise InputError(f"a history that monitors {given.monitor!r}, which not each of its epochs has")
        return cls(records, monitor=given.monitor, min_delta=given.min_delta, stopped=given.stopped)

    def __repr__(self) -> str:
        end = f", stopped: {self.stopped}" if self.stopped else ""
        return f"History(epochs={len(self)}, best_epoch={self.best_epoch}{end})"

    @property
    def table(self) -> Table:
        """The table that is printed."""
        shown = [name for name in METRICS if any(value is not None for value in self[name])]
        groups = list(dict.fromkeys(name for record in self for name in record.learning_rates))
        rates = [f"learning rate {name}" for name in groups] if len(groups) > 1 else ["learning rate"]
        headers = ("epoch", *shown, "seconds", *rates)
        notes = [f"stopped: {self.stopped}"] if self.stopped else []
        table = Table(headers, numbers=range(len(headers)), notes=notes)
        best = self.best_epoch
        for record in self:
            metrics = (format_metric(name, getattr(record, name)) for name in shown)
            mark = "*" if record.epoch == best else " "
            own = (record.learning_rates.get(name) for name in groups)
            learning_rates = ("" if rate is None else f"{rate:.3g}" for rate in own)
            table.add(f"{record.epoch} {mark}", *metrics, f"{record.seconds:.1f}", *learning_rates)
        return table

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table.html()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the losses of training and validation, and marks the best epoch; if accuracies were counted,
        they have an axis of their own on the right.

        Args:
            ax: where to draw; a new figure if None.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        ax = axes_to_draw_in(ax)
        epochs = self["epoch"]
        right = None
        if any(value is not None for name in METRICS[1::2] for value in self[name]):
            right = ax.twinx()
            right.set(ylabel="accuracy (%)")
        for name, color in zip(METRICS, ("C0", "C0", "C1", "C1"), strict=True):
            values = self[name]
            if all(value is None for value in values):
                continue
            higher = is_higher_better(name)
            target = right if higher and right is not None else ax
            numbers = [
                float("nan") if value is None else 100 * value if higher else value for value in values
            ]
            style = "--" if higher else "-"
            target.plot(epochs, numbers, style, color=color, marker=".", label=name)
        if len(self):
            ax.axvline(epochs[self.best_epoch], color="gray", alpha=0.4, label=f"best {self.monitor}")
        ax.set(
            xlabel="epoch", ylabel="loss", title=f"stopped: {self.stopped}" if self.stopped else "training"
        )
        parts = [axes.get_legend_handles_labels() for axes in (ax, right) if axes is not None]
        ax.legend(
            [one for handles, _ in parts for one in handles], [one for _, names in parts for one in names]
        )
        return ax


def format_metric(name: str, value: float | None) -> str:
    """Formats a loss or an accuracy for people."""
    if value is None:
        return ""
    return f"{value:.1%}" if is_higher_better(name) else f"{value:.4f}"


def is_higher_better(metric: str) -> bool:
    """Whether a metric is an accuracy and not a loss.

    >>> is_higher_better("val_accuracy"), is_higher_better("val_loss")
    (True, False)
    """
    return metric.endswith("accuracy")
