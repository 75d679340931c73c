"""Windows of time series, for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arguments import integer, path_of, shown
from ..errors import InputError
from .series_file import Series, read_series


@dataclass(frozen=True)
class Windows:
    """Windows of time series; `(windows.x, windows.y)` is data for `to_nano`, `fit` and devices."""

    #: float32 [N, channels, length], in the sensor's own units.
    x: Tensor
    #: int64 [N], indices into `labels`; None if the files have no labels.
    y: Tensor | None
    #: The names of the classes.
    labels: tuple[str, ...]
    #: int64 [N], indices into `group_names`: windows of one wearer, or of one recording. For
    #: :class:`torch_nano.heads.Start`, or to leave groups out of a training.
    groups: Tensor
    group_names: tuple[str, ...]
    #: The names of the sensor's numbers.
    channels: tuple[str, ...]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.x)

    def __str__(self) -> str:
        of = ""
        if self.y is not None:
            counts = torch.bincount(self.y, minlength=len(self.labels)).tolist()
            of = ": " + ", ".join(f"{n} {label}" for label, n in zip(self.labels, counts, strict=True))
        return f"{len(self)} windows of {self.x.shape[2]} samples of {', '.join(self.channels)}{of}"


def windows(
    files: str | Path | Iterable[str | Path],
    length: int,
    hop: int | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Windows:
    """Cuts time-series files (CSV, a row per time stamp) into windows.

    A window has rows of one recording and of one label only, and no gap in its times. Rows with an empty
    label are in no window. The columns are those that `torch-nano device collect` writes: `recording`,
    `time`, `label` and `group`, each of which may be missing; all others are the sensor's numbers.

    >>> import tempfile
    >>> file = tempfile.mkdtemp() + "/walk.csv"
    >>> rows = [f"{n / 100},{'walk' if n < 6 else 'rest'},{n},{-n}" for n in range(10)]
    >>> _ = Path(file).write_text("\\n".join(["time,label,ax,ay", *rows]))
    >>> made = windows(file, length=4, hop=2)
    >>> made.x[:, 0], made.y, made.labels
    (tensor([[0., 1., 2., 3.],
            [2., 3., 4., 5.],
            [6., 7., 8., 9.]]), tensor([1, 1, 0]), ('rest', 'walk'))

    Args:
        files: one file, or several with the same columns.
        length: rows of a window.
        hop: rows from window to window; None: `length`, so that windows do not overlap.
        labels: the classes in their order, such as those of a training, for windows to test with; None: all
            that are there, sorted.

    Raises:
        InputError: no window fits, a label is not in `labels`, the files differ in their columns, or an
            argument is invalid.
        FileFormatError: a file is no time series.
        OSError: a file cannot be read.
    """
    length, hop = integer("length", length, 1), integer("hop", length if hop is None else hop, 1)
    if not isinstance(files, str | Path) and not isinstance(files, Iterable):
        raise InputError(f"files is {shown(files)}; expected a path, or several")
    paths = [files] if isinstance(files, str | Path) else list(files)
    all_series = [read_series(path_of("files", path)) for path in paths]
    if not all_series:
        raise InputError("there is no file; expected one or more")
    _require_alike(all_series)
    x: list[np.ndarray] = []
    of: list[str] = []
    group_of: list[str] = []
    longest = 0
    for series in all_series:
        for start, end in _runs(series):
            longest = max(longest, end - start)
            group = series.groups[start] or f"{series.path.name} {series.recordings[start]}".strip()
            for first in range(start, end - length + 1, hop):
                x.append(series.values[first : first + length].T)
                of.append(series.labels[first])
                group_of.append(group)
    if not x:
        raise InputError(
            f"no window of {length} rows fits: the longest stretch of one recording and one label has "
            f"{longest}"
        )
    classes = _classes(of, labels, all_series[0].has_labels)
    group_names = tuple(sorted(set(group_of)))
    return Windows(
        torch.from_numpy(np.stack(x)),
        _indices(of, classes) if classes else None,
        classes,
        _indices(group_of, group_names),
        group_names,
        all_series[0].channels,
    )


def _require_alike(all_series: Sequence[Series]) -> None:
    first = all_series[0]
    for series in all_series[1:]:
        if (series.channels, series.has_labels) != (first.channels, first.has_labels):
            raise InputError(
                f"{series.path} has the columns {_columns(series)}, {first.path} {_columns(first)}; expected "
                "the same ones"
            )


def _columns(series: Series) -> str:
    return ", ".join([*(["label"] if series.has_labels else []), *series.channels])


def _runs(series: Series) -> Iterable[tuple[int, int]]:
    """The stretches of rows that follow each other and have one label: start and end of each."""
    start = 0
    for place in range(1, len(series) + 1):
        ends = place == len(series) or series.starts[place] or series.labels[place] != series.labels[start]
        if ends or series.groups[place] != series.groups[start]:
            if series.labels[start] or not series.has_labels:
                yield start, place
            start = place


def _classes(of: Sequence[str], labels: Sequence[str] | None, has_labels: bool) -> tuple[str, ...]:
    if labels is None:
        return tuple(sorted(set(of))) if has_labels else ()
    if isinstance(labels, str):
        raise InputError(f"labels is {shown(labels)}; expected the names of the classes")
    if not has_labels:
        raise InputError("labels were given, but the files have no column `label`")
    classes = tuple(labels)
    if unknown := sorted(set(of) - set(classes)):
        raise InputError(f"the files have the labels {', '.join(unknown)}; expected {', '.join(classes)}")
    return classes


def _indices(texts: Sequence[str], names: Sequence[str]) -> Tensor:
    places = {name: index for index, name in enumerate(names)}
    return torch.tensor([places[text] for text in texts])
