"""Data for calibration and comparison as batches of a graph's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import TensorOrArray, as_tensors, check_batch, check_same_batch
from ..errors import InputError
from ..ir.graph import Graph
from ..ir.lifetimes import most_numbers

#: A tensor or array, or batches: tensors, tuples (x, y, ...) that begin with the model's inputs, as from a
#: DataLoader, or dicts that have them by name; a dataset of such samples. The inputs may be a tuple or dict
#: of their own before the labels, ((a, b), y). Also one such tuple, or one dict.
CalibrationData = TensorOrArray | Mapping[str, TensorOrArray] | Dataset[Any] | Iterable[Any]

#: Samples of one run at most, ...
_SAMPLES = 256
#: ... and numbers that it holds at a time: 32 MiB in float32. Small batches run as fast as large ones.
_NUMBERS = 2**23


@dataclass(frozen=True)
class Batch:
    """Samples for one run."""

    #: One for each input of the graph: float32 [N, ...] on the CPU, or int64 indices.
    inputs: list[Tensor]
    #: What follows the inputs in a tuple (x, y): [N, ...] on the CPU; None without it.
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs[0])


class Batches:
    """Data as batches of a graph's inputs, of as many samples as the memory of a run allows.

    Args:
        purpose: for the messages.
        runs: how many runs of a batch are in memory at a time.
    """

    def __init__(
        self, graph: Graph, data: CalibrationData, purpose: str = "calibration", runs: int = 1
    ) -> None:
        self._graph, self._data, self._purpose = graph, as_tensors(data), purpose
        self._most = samples_of_a_run(runs * most_numbers(graph))

    @property
    def samples(self) -> int | None:
        """The number of samples; None if only iterating tells."""
        data: Any = self._data
        if _is_one_batch(self._graph, data):
            data = data[0][0] if isinstance(data[0], tuple | list) else data[0]
        if isinstance(data, Mapping):
            data = next(iter(data.values()), None)
        elif isinstance(data, DataLoader) and data.batch_size is not None:
            data = data.dataset
        try:
            return len(data) if isinstance(data, Tensor | Dataset) else None  # type: ignore[arg-type]
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Batch]:
        """
        Raises:
            InputError: a wrong kind of data, shape or dtype, or an input is missing.
        """
        names, values, purpose = self._graph.inputs, self._graph.values, self._purpose
        for part in self._parts():
            tensors, labels = _inputs_and_labels(names, as_tensors(part), purpose)
            for name, tensor in zip(names, tensors, strict=True):
                label = f"a {purpose} batch" if len(names) == 1 else f"a {purpose} batch's {name!r}"
                check_batch(label, tensor, values[name].user_shape, index_limit=values[name].index_limit)
            check_same_batch(names, tensors)
            if labels is not None and len(labels) != len(tensors[0]):
                raise InputError(
                    f"a {purpose} batch has {len(tensors[0])} samples and {len(labels)} labels; expected one "
                    "for each"
                )
            for start in range(0, len(tensors[0]), self._most):
                chosen = slice(start, start + self._most)
                yield Batch(
                    [
                        tensor[chosen].detach().to("cpu", values[name].user_dtype)
                        for name, tensor in zip(names, tensors, strict=True)
                    ],
                    None if labels is None else labels[chosen].detach().cpu(),
                )

    def _parts(self) -> Iterable[Any]:
        """The batches of the data."""
        data = self._data
        if isinstance(data, Tensor | Mapping) or _is_one_batch(self._graph, data):
            return [data]
        if isinstance(data, Dataset):
            return DataLoader(data, batch_size=self._most)
        if isinstance(data, Iterable) and not isinstance(data, str | bytes):
            return data
        raise InputError(
            f"{self._purpose} data is a {type(data).__name__}; expected a tensor or an iterable of batches"
        )


def samples_of_a_run(numbers: int) -> int:
    """How many samples to run at a time, so that memory does not depend on how many there are.

    Args:
        numbers: that the run holds for each sample.

    >>> samples_of_a_run(100), samples_of_a_run(2**20), samples_of_a_run(2**30)
    (256, 8, 1)
    """
    return min(_SAMPLES, max(1, _NUMBERS // max(1, numbers)))


def _inputs_and_labels(names: Sequence[str], part: Any, purpose: str) -> tuple[list[Tensor], Tensor | None]:
    """The model's inputs in one batch, and the tensor after them.

    Raises:
        InputError: an input is missing.
    """
    found: list[Any] = []
    rest: Sequence[Any] = ()
    if isinstance(part, tuple | list) and len(part) > 1 and is_group(part[0]):
        part, rest = part[0], part[1:]
    if isinstance(part, Mapping):
        missing = [name for name in names if name not in part]
        if missing:
            raise InputError(
                f"a {purpose} batch is a dict of {', '.join(map(str, part))}; it lacks {missing[0]!r}, an "
                "input of the model"
            )
        found = [part[name] for name in names]
    elif isinstance(part, Tensor):
        found = [part]
    elif isinstance(part, tuple | list):
        found, rest = list(part[: len(names)]), [*part[len(names) :], *rest]
    if len(found) != len(names) or not all(isinstance(tensor, Tensor) for tensor in found):
        expected = "a tensor, or a tuple (x, y) whose x is one"
        given = f"a {type(part).__name__}"
        if len(names) > 1:
            expected = f"a tuple that begins with tensors for {', '.join(names)}, or a dict of them"
            if isinstance(part, tuple | list):
                given += f" of {', '.join(type(item).__name__ for item in part) or 'nothing'}"
        raise InputError(f"a {purpose} batch is {given}; expected {expected}")
    labels = rest[0] if rest else None
    return found, labels if isinstance(labels, Tensor) and labels.dim() > 0 else None


def is_group(part: object) -> bool:
    """Whether this is the inputs of a batch, in a tuple or dict of their own: the a and b of ((a, b), y)."""
    if isinstance(part, Mapping):
        part = [*part.values()]
    return isinstance(part, tuple | list) and all(isinstance(one, Tensor) for one in part)


def _is_one_batch(graph: Graph, data: object) -> bool:
    """Whether a tuple is one batch: all inputs of a model of several, or in a tuple or dict of their own, or
    (x, y) where y is no further x.
    """
    if not isinstance(data, tuple) or not data or not all(isinstance(part, Tensor) for part in data[1:]):
        return False
    if not isinstance(data[0], Tensor):
        return len(data) > 1 and is_group(data[0])
    if len(graph.inputs) > 1:
        return True
    return len(data) > 1 and tuple(data[1].shape[1:]) != graph.values[graph.inputs[0]].user_shape
