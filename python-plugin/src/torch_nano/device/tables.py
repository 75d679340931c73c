"""Inputs and labels from files, for the command line."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import TorchNanoError

#: The column of a CSV file with the label.
_LABEL = "label"


class TableError(TorchNanoError, ValueError):
    """A file of samples is of another kind, or damaged; the message says where."""


@dataclass(frozen=True)
class Table:
    """Samples from a file."""

    #: [N, ...]: floats, or the device's int8.
    inputs: NDArray[np.generic]
    #: For each a class, by index or name; None if the file has none.
    labels: list[int | str] | None


def read_table(path: Path) -> Table:
    """The samples in a `.npz` file (arrays `x`, `y`) or a `.csv` file (a column `label`, the others numbers).

    Raises:
        TableError: it is neither, or damaged.
        OSError: it cannot be read.
    """
    match path.suffix:
        case ".npz":
            table = _npz(path)
        case ".csv":
            table = _csv(path)
        case suffix:
            raise TableError(f"{path} ends in {suffix!r}; expected .npz or .csv")
    if len(table.inputs) == 0:
        raise TableError(f"{path} has no sample")
    return table


def _npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "x" not in arrays:
                raise TableError(f"{path} has the arrays {', '.join(arrays)}; expected `x` and `y`")
            inputs, labels = arrays["x"], arrays.get("y")
    except (zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path} is no .npz file: {error}") from error
    if inputs.ndim < 2:
        raise TableError(f"{path}: x has shape {list(inputs.shape)}; expected [N, ...]")
    if labels is not None and labels.shape != inputs.shape[:1]:
        raise TableError(
            f"{path}: x has {len(inputs)} samples, y the shape {list(labels.shape)}; expected [N]"
        )
    return Table(inputs, None if labels is None else labels.tolist())


def _csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        names = [name for name in rows.fieldnames or [] if name != _LABEL]
        labelled = _LABEL in (rows.fieldnames or [])
        inputs: list[list[float]] = []
        labels: list[int | str] = []
        for row in rows:
            try:
                inputs.append([float(row[name]) for name in names])
            except (TypeError, ValueError) as error:
                raise TableError(
                    f"{path}, line {rows.line_num}: {error}; expected {len(names)} numbers"
                ) from error
            if None in row:
                raise TableError(f"{path}, line {rows.line_num} has more than {len(names)} numbers")
            if labelled:
                labels.append(_label(row[_LABEL]))
    return Table(np.array(inputs, np.float32).reshape(len(inputs), len(names)), labels if labelled else None)


def _label(text: str) -> int | str:
    """A class by index if it is a number, else by name.

    >>> _label("3"), _label("walk")
    (3, 'walk')
    """
    return int(text) if text.isdecimal() else text.strip()
