"""The error that the rounding of one value causes at the outputs, by itself."""

from __future__ import annotations

from collections.abc import Sequence

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


def rounding_errors(
    graph: Graph, quantized: QuantizedGraph, data: Sequence[Batch], values: Sequence[str]
) -> dict[str, float]:
    """For each of some values the SQNR in dB of the worst output of the float network in which this value is
    rounded as in the quantized graph, and all others are exact.
    """
    with torch.no_grad():
        expected = [graph.float_run(*batch.inputs) for batch in data]
        found = {}
        for name in values:
            sums = [OutputSums() for _ in graph.outputs]
            for batch, right in zip(data, expected, strict=True):
                rounded = _run(graph, quantized, batch, name)
                for one, exact, given in zip(sums, right, rounded, strict=True):
                    one.observe(exact, given, None)
            named = zip(graph.returned.names, sums, strict=True)
            found[name] = worst_sqnr([OutputComparison.of(*each) for each in named])
    return found


def _run(graph: Graph, quantized: QuantizedGraph, batch: Batch, rounded: str) -> list[Tensor]:
    """The outputs in float, with one value rounded."""
    quantization = quantized.graph.quantization(rounded)

    def run_node(node: Node, inputs: list[Tensor]) -> list[Tensor]:
        outputs = graph.layer(node, inputs).float_run()
        return [round_(name, y) for name, y in zip(node.outputs, outputs, strict=True)]

    def round_(name: str, x: Tensor) -> Tensor:
        return dequantize_tensor(quantize_tensor(x, quantization), quantization) if name == rounded else x

    inputs = zip(graph.inputs, graph.from_user(batch.inputs), strict=True)
    return graph.to_user(
        graph.run([round_(name, graph.after_affines(name, x)) for name, x in inputs], run_node)
    )
