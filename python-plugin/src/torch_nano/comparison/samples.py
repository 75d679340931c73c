"""The samples on which networks are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..calibration.batches import Batch, Batches, CalibrationData
from ..ir.graph import Graph

#: One of so many samples is kept at most; at least so many samples, and at most so many.
_SHARE, _LEAST, _MOST = 16, 8, 256
#: Numbers that are kept at most, beyond the least samples.
_NUMBERS = 2**22
#: Runs of a batch that are in memory at a time: each network's own, and the layer alone in both.
_RUNS = 4


def batches_to_compare(graph: Graph, data: CalibrationData, names: Sequence[str] = ()) -> Batches:
    """Data as batches for :func:`.measure.compare`.

    Args:
        names: of the classes, by which labels may name them.
    """
    return Batches(graph, data, "comparison", _RUNS, names)


class KeptSamples:
    """Evenly spread samples of data of any length, a 32nd to a sixteenth of them, that fit into memory.

    Args:
        least: samples that are kept even if they are a greater share, if there are as many.

    >>> kept = KeptSamples()
    >>> for start in range(0, 400, 100):
    ...     kept.observe(Batch([torch.arange(start, start + 100.0)[:, None]], None))
    >>> [len(batch) for batch in kept.batches], kept.batches[0].inputs[0].flatten().tolist()[:4]
    ([4, 3, 3, 3], [0.0, 32.0, 64.0, 96.0])
    """

    def __init__(self, least: int = _LEAST) -> None:
        self.batches: list[Batch] = []
        self._least = least
        #: One sample is kept of this number.
        self._every = 1
        self._seen = 0

    def observe(self, batch: Batch) -> None:
        """Keeps some samples of a batch."""
        first = -self._seen % self._every
        self._seen += len(batch)
        self._keep([*self.batches, _picked(batch, first, self._every)])
        while self.count // 2 >= self._least and self.count > self._most:
            self._thin_out()

    def samples(self, graph: Graph, count: int | None = None) -> Batches:
        """The first of the samples that are kept, or all, in batches for a comparison of a graph."""
        inputs = zip(*(batch.inputs for batch in self.batches), strict=True)
        named = zip(graph.inputs, inputs, strict=True)
        return batches_to_compare(graph, {name: torch.cat(parts)[:count] for name, parts in named})

    @property
    def count(self) -> int:
        """The number of samples that are kept."""
        return sum(map(len, self.batches))

    @property
    def _most(self) -> int:
        numbers = sum(x.numel() for batch in self.batches for x in batch.inputs)
        fitting = _NUMBERS * self.count // max(1, numbers)
        return max(self._least, min(_MOST, self._seen // _SHARE, fitting))

    def _thin_out(self) -> None:
        """Leaves out every other sample."""
        self._every *= 2
        thinner, place = [], 0
        for batch in self.batches:
            thinner.append(_picked(batch, place % 2, 2))
            place += len(batch)
        self._keep(thinner)

    def _keep(self, batches: list[Batch]) -> None:
        self.batches = [batch for batch in batches if len(batch)]


def _picked(batch: Batch, first: int, every: int) -> Batch:
    # Copies, so that the whole batch is freed.
    return Batch([x[first::every].clone() for x in batch.inputs], None)
