"""Runs a network in float and in int8 side by side, and measures each layer's error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..arithmetic.tensors import dequantize_tensor, quantize_tensor
from ..calibration.batches import Batch, Batches
from ..calibration.calibrate import check_value
from ..calibration.quantize import QuantizedGraph
from ..calibration.ranges import QuantizationPlan
from ..errors import InputError
from ..ir.graph import Graph, Node
from ..ir.precision import around, modules_without
from ..library.one_layer import run_native
from ..ops.argmax import argmax_of
from ..progress import progress_of
from .advice import may_need_16_bits
from .report import Comparison, LayerComparison, OutputComparison
from .rounding import RoundingErrors
from .samples import KeptSamples
from .sums import ErrorSums, OutputSums, ValueSums

#: Layers of which it is measured whether 16 bits would help the outputs, and samples for that: each takes a
#: run of the float network.
_MEASURED, _SAMPLES = 8, 8

#: Real outputs from the integers that the quantized graph returns.
Finish = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class _Both:
    """One value in both networks."""

    real: Tensor
    #: None for the layers that the quantized graph lacks: those of a trainable head.
    integers: Tensor | None


def compare(
    graph: Graph, quantized: QuantizedGraph, data: Batches, finish: Finish | None = None
) -> Comparison:
    """Compares a graph with its quantized graph on data.

    Both run value by value side by side, so that only the values in use are in memory.

    Args:
        graph: in float; it may go on after the outputs of the quantized graph.
        quantized: its values and nodes have the names of `graph`.
        data: batches of inputs; labels are the classes of a single output.
        finish: of a trainable head; None dequantizes the outputs.

    Raises:
        InputError: the data is empty, a label is no class, or a head has learnt other classes than the model
            has.
        NonFiniteError: NaN or infinity in the data or an activation.
    """
    run = _Run(graph, quantized)
    outputs, kept = [OutputSums(_classes(graph, name)) for name in graph.outputs], KeptSamples()
    with torch.no_grad(), progress_of("comparison", data.samples) as advance:
        for batch in data:
            if not len(batch):
                continue
            real, integers = run.run(batch)
            found = finish(integers) if finish is not None else run.dequantized(integers)
            labels = batch.labels if len(outputs) == 1 else None
            for sums, expected, given in zip(outputs, real, found, strict=True):
                if expected.shape != given.shape:
                    raise InputError(
                        f"the model returns {list(expected.shape[1:])} numbers for each sample in float, and "
                        f"{list(given.shape[1:])} in int8; expected a head with the classes of the model"
                    )
                sums.observe(expected, given, labels)
            kept.observe(batch)
            advance(len(batch))
    if not outputs or not outputs[0].samples:
        raise InputError("the comparison data is empty; expected at least one sample")
    layers = sorted(run.layers(), key=lambda layer: (layer.own_sqnr, layer.sqnr, layer.position))
    return Comparison(
        tuple(_with_rounding_alone(layers, graph, quantized, kept)),
        tuple(_compared(graph, outputs)),
        outputs[0].samples,
        None if finish is None else quantized.graph.outputs[0],
    )


def compare_outputs(
    graph: Graph,
    quantized: QuantizedGraph,
    data: Iterable[Batch],
    advance: Callable[[int], None] = lambda samples: None,
) -> list[OutputComparison]:
    """Compares the outputs alone, which is cheaper.

    Args:
        graph: in float, with the outputs of `quantized`.
        advance: called with the number of samples after each batch.
    """
    run = _Run(graph, quantized)
    outputs = [OutputSums() for _ in graph.outputs]
    with torch.no_grad():
        for batch in data:
            found = run.dequantized(run.integer_outputs(batch))
            for sums, expected, given in zip(outputs, graph.float_run(*batch.inputs), found, strict=True):
                sums.observe(expected, given, None)
            advance(len(batch))
    return _compared(graph, outputs)


def _classes(graph: Graph, output: str) -> int | None:
    """The number of classes of an output that holds the index of one; None for other outputs."""
    argmax = argmax_of(graph, output)
    return None if argmax is None else graph.values[argmax.inputs[0]].shape[0]


def _with_rounding_alone(
    layers: Sequence[LayerComparison], graph: Graph, quantized: QuantizedGraph, kept: KeptSamples
) -> list[LayerComparison]:
    """The layers, of which the first that may need 16 bits have what their rounding costs by itself."""
    found = [layer.value for layer in layers if may_need_16_bits(layer)][:_MEASURED]
    if not found:
        return list(layers)
    errors = RoundingErrors(graph, quantized, list(kept.samples(graph, _SAMPLES)))
    costs = {value: errors.sqnr({value}) for value in found}
    return [replace(layer, rounding_alone=costs.get(layer.value)) for layer in layers]


def _compared(graph: Graph, outputs: Sequence[OutputSums]) -> list[OutputComparison]:
    return [OutputComparison.of(name, sums) for name, sums in zip(graph.returned.names, outputs, strict=True)]


class _Run:
    """The runs of both networks, and what they have measured."""

    def __init__(self, graph: Graph, quantized: QuantizedGraph) -> None:
        self._graph, self._quantized = graph, quantized
        self._nodes = {node.name: node for node in quantized.graph.nodes}
        #: By value, in order of execution.
        self._values = {
            name: ValueSums(quantized.graph.quantization(name), value.factors)
            for name, value in quantized.graph.values.items()
        }
        self._fixed = modules_without(quantized.graph, "int16").keys()
        self._own = {name: ErrorSums() for name in self._values}

    def inputs(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs as the network sees them, in float and in integers."""
        integers = []
        given = self._graph.from_user(batch.inputs)
        for name, x in zip(self._graph.inputs, given, strict=True):
            check_value(self._graph, name, x, "comparison")
            channels = self._quantized.channels.get(name)
            integers.append(quantize_tensor(x, self._quantization(name), channels))
        named = zip(self._graph.inputs, given, strict=True)
        return [self._graph.after_affines(name, x) for name, x in named], integers

    def integer_outputs(self, batch: Batch) -> list[Tensor]:
        """The integers that the quantized graph returns, in the user's shapes."""
        _, integers = self.inputs(batch)
        graph = self._quantized.graph
        return graph.to_user(graph.run(integers, self._run_integers))

    def run(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs in float, and the integers that the quantized graph returns."""
        real, integers = self.inputs(batch)
        for name, x, found in zip(
            self._graph.inputs, real, self.dequantized(integers, self._graph.inputs), strict=True
        ):
            self._own[name].observe(x, found)
        inputs = [_Both(*both) for both in zip(real, integers, strict=True)]
        kept: dict[str, Tensor] = {}

        def observe(name: str, both: _Both) -> None:
            check_value(self._graph, name, both.real, "comparison")
            if both.integers is not None:
                self._values[name].observe(both.real, both.integers)
                if name in self._quantized.graph.outputs:
                    kept[name] = both.integers

        outputs = self._graph.run(inputs, self._run_node, observe)
        graph = self._quantized.graph
        return self._graph.to_user([both.real for both in outputs]), graph.to_user(
            [kept[name] for name in graph.outputs]
        )

    def _run_node(self, node: Node, inputs: list[_Both]) -> list[_Both]:
        real = self._graph.layer(node, [both.real for both in inputs]).float_run()
        counterpart = self._nodes.get(node.name)
        integers = [both.integers for both in inputs if both.integers is not None]
        if counterpart is None or len(integers) < len(inputs):
            return [_Both(tensor, None) for tensor in real]
        made = self._run_integers(counterpart, integers)
        # The layer alone: both runs read the very same numbers, those of the float network in int8.
        exact = [
            quantize_tensor(both.real, self._quantization(name))
            for name, both in zip(node.inputs, inputs, strict=True)
        ]
        given = self.dequantized(exact, node.inputs)
        expected = self._graph.layer(node, given).float_run()
        alone = self.dequantized(self._run_integers(counterpart, exact), node.outputs)
        for name, right, found in zip(node.outputs, expected, alone, strict=True):
            # A logarithm of a number that is rounded to 0 is infinite, and at the bound in integers.
            low, high = self._quantization(name).range
            self._own[name].observe(right.nan_to_num(0.0, high, low), found)
        return [_Both(tensor, integer) for tensor, integer in zip(real, made, strict=True)]

    def _run_integers(self, node: Node, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs a node of the quantized graph in plain torch or in nano-core, whichever is faster."""
        layer = self._quantized.layer(node, inputs)
        if node.operator.fast_in_torch and layer.input_quantizations[0].dtype == "int8":
            return layer.integer_run()
        return run_native(layer, [self._quantized.graph.values[name].shape for name in node.outputs])

    def dequantized(self, integers: Sequence[Tensor], names: Sequence[str] | None = None) -> list[Tensor]:
        """Integers of values, by default of the outputs, as real numbers."""
        names = self._quantized.graph.outputs if names is None else names
        named = zip(integers, names, strict=True)
        return [dequantize_tensor(tensor, self._quantization(name)) for tensor, name in named]

    def layers(self) -> list[LayerComparison]:
        """The layers in order of execution, the inputs first."""
        graph, plan = self._quantized.graph, QuantizationPlan(self._graph)
        operators = dict.fromkeys(graph.inputs, "input")
        for node in graph.nodes:
            operators |= dict.fromkeys(node.outputs, node.operator.name)
        return [
            LayerComparison.of(
                position,
                graph.values[name],
                operators[name],
                plan.has_range(name),
                plan.shares_range(name),
                self._around(name),
                self._values[name],
                own,
            )
            for position, (name, own) in enumerate(self._own.items())
        ]

    def _around(self, name: str) -> tuple[str, ...]:
        graph = self._quantized.graph
        if name in graph.outputs and name not in self._graph.outputs:
            # The features of a trainable head.
            return ()
        paths = dict.fromkeys(graph.module_path(node) for node in around(graph, name))
        return () if self._fixed & paths.keys() else tuple(paths)

    def _quantization(self, name: str) -> Quantization:
        return self._quantized.graph.quantization(name)
