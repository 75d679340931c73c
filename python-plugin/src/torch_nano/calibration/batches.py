"""Data for calibration and comparison as batches of a graph's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import as_tensors, check_batch, check_same_batch
from ..data.forms import Data, Labels, batches, indices_of, inputs_and_labels, is_one_batch
from ..errors import InputError
from ..ir.graph import Graph
from ..ir.lifetimes import most_numbers

#: Data in any form of :mod:`torch_nano.data.forms`; labels are optional.
CalibrationData = Data

#: Samples of one run at most, ...
_SAMPLES = 256
#: ... and numbers that it holds at a time: 32 MiB in float32. Small batches run as fast as large ones.
_NUMBERS = 2**23


@dataclass(frozen=True)
class Batch:
    """Samples for one run."""

    #: One for each input of the graph: float32 [N, ...] on the CPU, or int64 indices.
    inputs: list[Tensor]
    #: The labels, [N, ...] on the CPU; None without any.
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs[0])


class Batches:
    """Data as batches of a graph's inputs, of as many samples as the memory of a run allows.

    Args:
        purpose: for the messages.
        runs: how many runs of a batch are in memory at a time.
        names: of the classes, by which labels may name them; None: such labels are left out.
    """

    def __init__(
        self,
        graph: Graph,
        data: CalibrationData,
        purpose: str = "calibration",
        runs: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        self._graph, self._data, self._purpose, self._names = graph, as_tensors(data), purpose, names
        self._most = samples_of_a_run(runs * most_numbers(graph))

    @property
    def samples(self) -> int | None:
        """The number of samples; None if only iterating tells."""
        data: Any = self._data
        names = self._graph.inputs
        if is_one_batch(data, len(names), self._graph.values[names[0]].user_shape):
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
        first = values[names[0]].user_shape
        one = is_one_batch(self._data, len(names), first)
        for part in batches(self._data, purpose, self._most, one):
            tensors, labels = inputs_and_labels(names, as_tensors(part), purpose)
            for name, tensor in zip(names, tensors, strict=True):
                label = f"a {purpose} batch" if len(names) == 1 else f"a {purpose} batch's {name!r}"
                check_batch(label, tensor, values[name].user_shape, index_limit=values[name].index_limit)
            check_same_batch(names, tensors)
            if labels is not None and len(labels) != len(tensors[0]):
                raise InputError(
                    f"a {purpose} batch has {len(tensors[0])} samples and {len(labels)} labels; expected one "
                    "for each"
                )
            indices = self._indices(labels)
            for start in range(0, len(tensors[0]), self._most):
                chosen = slice(start, start + self._most)
                yield Batch(
                    [
                        tensor[chosen].detach().to("cpu", values[name].user_dtype)
                        for name, tensor in zip(names, tensors, strict=True)
                    ],
                    None if indices is None else indices[chosen].detach().cpu(),
                )

    def _indices(self, labels: Labels | None) -> Tensor | None:
        """Labels as a tensor."""
        if labels is None or isinstance(labels, Tensor):
            return labels
        if self._names is None:
            return None
        return indices_of(labels, self._names, len(self._names), f"the {self._purpose} data")


def samples_of_a_run(numbers: int) -> int:
    """How many samples to run at a time, so that memory does not depend on how many there are.

    Args:
        numbers: that the run holds for each sample.

    >>> samples_of_a_run(100), samples_of_a_run(2**20), samples_of_a_run(2**30)
    (256, 8, 1)
    """
    return min(_SAMPLES, max(1, _NUMBERS // max(1, numbers)))
