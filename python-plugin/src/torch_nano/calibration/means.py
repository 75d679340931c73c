"""The means of values over the calibration data, for bias correction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ir.graph import Graph


class Means:
    """The mean of each value that a layer with weights reads, element by element.

    Args:
        graph: whose values are observed.
    """

    def __init__(self, graph: Graph) -> None:
        self._shapes = {
            name: graph.values[name].shape
            for node in graph.nodes
            if "weight" in node.parameters
            for name in node.inputs
        }
        self._sums: dict[str, Tensor] = {}
        self._samples: dict[str, int] = {}

    def observe(self, name: str, tensor: Tensor) -> None:
        """Takes in one batch [N, ...] of a value; ignores the numbers of a range that are not the value's."""
        if name not in self._shapes or tuple(tensor.shape[1:]) != self._shapes[name]:
            return
        total = tensor.sum(0, dtype=torch.float64)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._samples[name] = self._samples.get(name, 0) + len(tensor)

    def found(self) -> dict[str, Tensor]:
        """float32 [*shape] by the value's name, of the values that were observed."""
        return {name: (total / max(1, self._samples[name])).float() for name, total in self._sums.items()}
