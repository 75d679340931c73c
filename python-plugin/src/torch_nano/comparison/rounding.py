"""The error that the rounding of values causes at the outputs, by itself."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor

from ..arithmetic.tensors import dequantize_tensor, quantize_tensor
from ..calibration.batches import Batch
from ..calibration.quantize import QuantizedGraph
from ..ir.graph import Graph, Node
from .report import OutputComparison
from .sums import OutputSums


def worst_sqnr(outputs: Sequence[OutputComparison]) -> float:
    """The SQNR in dB of the worst output."""
    return min(output.least_sqnr for output in outputs)


class RoundingErrors:
    """Errors at the outputs of a float network in which some values are rounded as in the quantized graph.

    All others, and the weights, are exact.
    """

    def __init__(self, graph: Graph, quantized: QuantizedGraph, data: Sequence[Batch]) -> None:
        self._graph, self._quantized, self._data = graph, quantized, data
        with torch.no_grad():
            self._expected = [graph.float_run(*batch.inputs) for batch in data]

    def sqnr(self, rounded: Container[str]) -> float:
        """The SQNR in dB of the worst output with these values rounded."""
        sums = [OutputSums() for _ in self._graph.outputs]
        with torch.no_grad():
            for batch, right in zip(self._data, self._expected, strict=True):
                for one, exact, given in zip(sums, right, self._run(batch, rounded), strict=True):
                    one.observe(exact, given, None)
        named = zip(self._graph.returned.names, sums, strict=True)
        return worst_sqnr([OutputComparison.of(*each) for each in named])

    def _run(self, batch: Batch, rounded: Container[str]) -> list[Tensor]:
        graph = self._graph

        def run_node(node: Node, inputs: list[Tensor]) -> list[Tensor]:
            outputs = graph.layer(node, inputs).float_run()
            return [round_(name, y) for name, y in zip(node.outputs, outputs, strict=True)]

        def round_(name: str, x: Tensor) -> Tensor:
            if name not in rounded:
                return x
            quantization = self._quantized.graph.quantization(name)
            return dequantize_tensor(quantize_tensor(x, quantization), quantization)

        inputs = zip(graph.inputs, graph.from_user(batch.inputs), strict=True)
        return graph.to_user(
            graph.run([round_(name, graph.after_affines(name, x)) for name, x in inputs], run_node)
        )
