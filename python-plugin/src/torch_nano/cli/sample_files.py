"""Sample files of the command line: inputs and labels from `.npz` and `.csv`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import TorchNanoError
from ..files.csv_table import LABEL, listed, number_of, read_csv
from ..files.npz import read_npz
from ..files.reading import read_file, refusing

#: The arrays of an archive with the inputs and the labels of a model of one input.
_X, _Y = "x", "y"
#: The first bytes of a file of one array.
_NPY = b"\x93NUMPY"
#: What a device's inputs, and indices, may be of.
_INTEGERS = (np.int8, np.int16, np.int32, np.int64)


class SampleFileError(TorchNanoError, ValueError):
    """A sample file has another format, or is damaged; the message says where."""


@dataclass(frozen=True)
class SampleFile:
    """Samples from a file."""

    path: Path
    #: By array name, [N, ...] each: floats, indices, or the device's integers. `x` for a model of one input.
    inputs: dict[str, NDArray[np.generic]]
    #: [N, ...]: the array of an archive, or the texts of a CSV file as objects (numpy's texts all take the
    #: memory of the longest one); None if the file has no labels.
    labels: NDArray[np.generic] | None
    #: For a CSV file the names of its columns, and the line of each sample.
    columns: list[str] | None = None
    lines: list[int] | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def place(self, sample: int) -> str:
        """The position of a sample in the file, for messages."""
        where = f"sample {sample} (from 0)" if self.lines is None else f"line {self.lines[sample]}"
        return f"{self.path}, {where}"

    def indices(self, name: str) -> NDArray[np.int64]:
        """An input as indices.

        Raises:
            SampleFileError: it has numbers that are not whole.
        """
        numbers = self.inputs[name]
        whole = (numbers == np.floor(numbers)).all(axis=tuple(range(1, numbers.ndim)))
        if not whole.all():
            raise SampleFileError(
                f"{self.place(int(whole.argmin()))} has numbers that are not whole; expected indices, by "
                "which the model looks up rows"
            )
        return numbers.astype(np.int64)

    def require_labels(self) -> NDArray[np.generic]:
        """The labels.

        Raises:
            SampleFileError: the file has no labels.
        """
        if self.labels is not None:
            return self.labels
        if self.columns is None:
            raise SampleFileError(f"{self.path} has no labels; expected an array `{_labels(self.inputs)}`")
        columns = listed(self.columns)
        raise SampleFileError(f"{self.path} has no labels; expected a column `{LABEL}`; it has {columns}")


def read_samples(path: Path, names: Sequence[str] = ()) -> SampleFile:
    """Reads a `.npz` file (only arrays `x` and `y`) or a `.csv` file (a column `label`, the others numbers).

    Args:
        names: the inputs of a model of several, each an array of a `.npz` file.

    Raises:
        SampleFileError: it is neither, or damaged.
        OSError: it cannot be read.
    """
    read: Callable[[Path, bytes], SampleFile]
    match path.suffix.lower():
        case ".npz":
            read = partial(_npz, names=list(names) or [_X])
        case ".csv" if names:
            raise SampleFileError(
                f"{path} holds one input; the model takes {len(names)}: expected an .npz file with arrays "
                f"called {listed(list(names))}"
            )
        case ".csv":
            read = _csv
        case ".npy":
            raise _one_array(path)
        case suffix:
            raise SampleFileError(f"{path} ends in {suffix!r}; expected .npz or .csv")
    content = read_file(path, SampleFileError)
    with refusing(SampleFileError, str(path)):
        table = read(path, content)
    if len(table) == 0:
        raise SampleFileError(f"{path} has no sample")
    for inputs in table.inputs.values():
        finite = np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim)))
        if not finite.all():
            place = table.place(int(finite.argmin()))
            raise SampleFileError(f"{place} has NaN or infinity; expected finite numbers")
    return table


def _npz(path: Path, content: bytes, names: list[str]) -> SampleFile:
    if content.startswith(_NPY):
        raise _one_array(path)
    label = _labels(names)
    arrays = read_npz(content, path, {*names, label}, SampleFileError)
    expected = f"{' and '.join(f'`{name}`' for name in names)}, and `{label}` for labels"
    if not arrays.keys() >= set(names):
        there = f"the arrays {listed(list(arrays))}" if arrays else "no array"
        raise SampleFileError(f"{path} has {there}; expected {expected}")
    if unread := arrays.keys() - {*names, label}:
        raise SampleFileError(
            f"{path} has arrays that nothing reads, {listed(sorted(unread))}; expected only {expected}"
        )
    inputs, labels = {name: arrays[name] for name in names}, arrays.get(label)
    for name, array in inputs.items():
        if array.ndim < 2:
            raise SampleFileError(f"{path}: {name} has shape {list(array.shape)}; expected [N, ...]")
        if array.dtype not in _INTEGERS and not np.issubdtype(array.dtype, np.floating):
            raise SampleFileError(
                f"{path}: {name} has dtype {array.dtype}; expected floats, indices, or the device's int8"
            )
    first, *others = inputs
    rest = {name: inputs[name] for name in others} | ({} if labels is None else {label: labels})
    for name, array in rest.items():
        if array.shape[:1] != inputs[first].shape[:1]:
            count = f"{first} has {len(inputs[first])} samples"
            expected = "[N]" if name == label else "[N, ...]"
            raise SampleFileError(
                f"{path}: {count}, {name} the shape {list(array.shape)}; expected {expected}"
            )
    return SampleFile(path, inputs, labels)


def _labels(names: Collection[str]) -> str:
    """The name of an archive's array of labels."""
    return LABEL if _Y in names else _Y


def _one_array(path: Path) -> SampleFileError:
    return SampleFileError(
        f"{path} holds one array (.npy); expected an .npz file: np.savez('data.npz', x=x, y=y)"
    )


def _csv(path: Path, content: bytes) -> SampleFile:
    table = read_csv(path, content, SampleFileError)
    label = table.names.index(LABEL) if LABEL in table.names else None
    inputs: list[list[float]] = []
    labels: list[str] = []
    for line, row in table.rows:
        if label is not None:
            labels.append(row.pop(label).strip())
        inputs.append([table.number(line, field) for field in row])
    width = len(table.names) - (label is not None)
    with np.errstate(over="ignore"):  # to infinity, which is refused
        numbers = np.array(inputs, np.float32).reshape(len(inputs), width)
    lines = [line for line, _ in table.rows]
    return SampleFile(
        path, {_X: numbers}, None if label is None else np.array(labels, object), table.names, lines
    )


def number(place: str, text: str) -> float:
    """A label that is a number.

    Raises:
        SampleFileError: it is not a finite number.
    """
    value = number_of(place, text, SampleFileError)
    if not math.isfinite(value):
        raise SampleFileError(f"{place}: the label is {text}; expected a finite number")
    return value
