"""What bias correction and equalization need to know of values over the calibration data."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arithmetic.tensors import channel_extremes
from ..ir.graph import Graph

#: Lowest and highest numbers of each channel; float32 [channels] each.
Extremes = tuple[Tensor, Tensor]


class Statistics:
    """The extremes of each channel of all values, and the mean of each value that a layer with weights reads.

    Args:
        graph: whose values are observed.
    """

    def __init__(self, graph: Graph) -> None:
        self._shapes = {name: value.shape for name, value in graph.values.items()}
        readers = [node for node in graph.nodes if "weight" in node.parameters]
        self._read = {name for node in readers for name in node.inputs}
        #: By value.
        self.extremes: dict[str, Extremes] = {}
        self._sums: dict[str, Tensor] = {}
        self._samples: dict[str, int] = {}

    def observe(self, name: str, tensor: Tensor) -> None:
        """Takes in one batch [N, ...] of a value; ignores numbers of its range that are not its own."""
        if tuple(tensor.shape[1:]) != self._shapes[name] or not len(tensor):
            return
        low, high = channel_extremes(tensor)
        if name in self.extremes:
            before = self.extremes[name]
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        self.extremes[name] = low, high
        if name in self._read:
            # Not sum(0, dtype=torch.float64), which copies the whole batch to float64 first.
            total = tensor.sum(0).double()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._samples[name] = self._samples.get(name, 0) + len(tensor)

    def means(self) -> dict[str, Tensor]:
        """The means: float32 [*shape] by the value's name."""
        return {name: (total / self._samples[name]).float() for name, total in self._sums.items()}
