"""Quantized graphs: quantized values, and the integer constants of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import Tensor

from .._native import NanoError
from ..arithmetic.quantization import ChannelScales, Quantization
from ..errors import QuantizationError, TorchNanoError, in_module
from ..ir.graph import Graph, Node
from ..ir.layer import Layer
from .ranges import QuantizationPlan, Range


@dataclass
class QuantizedGraph:
    """A graph in integers: every value has a quantization, and there are no float parameters."""

    graph: Graph
    #: The int8 weights, int32 biases and so on of each node, by the node's and nano-core's name.
    tensors: dict[str, dict[str, Tensor]]
    #: The scales of the inputs whose channels differ, by name.
    channels: dict[str, ChannelScales] = field(default_factory=dict)
    #: Whether each run is a step of a stream.
    streams: bool = False

    def integer_run(
        self, *inputs: Tensor, observe: Callable[[str, Tensor], None] | None = None
    ) -> list[Tensor]:
        """Runs the graph on integers in plain torch, on the inputs' device; inputs and outputs are in the
        user's shapes, with batch.

        The outputs equal nano-core's, byte for byte.

        Args:
            observe: called with the name and the integers of every value, inputs included, in its shape.
        """

        outputs = self.graph.run(
            self.graph.from_user(inputs), lambda node, given: self.layer(node, given).integer_run(), observe
        )
        return self.graph.to_user(outputs)

    def layer(self, node: Node, inputs: Sequence[Tensor]) -> Layer:
        """A node as a layer with integer inputs, and its tensors on their device."""
        device = inputs[0].device
        tensors = {name: tensor.to(device) for name, tensor in self.tensors[node.name].items()}
        return replace(self.graph.layer(node, inputs), tensors=tensors)


def quantize(
    graph: Graph, choose: Callable[[Range], Quantization], means: Mapping[str, Tensor] = MappingProxyType({})
) -> QuantizedGraph:
    """Quantizes a graph.

    Args:
        choose: the quantization of a range, from calibration (:func:`.ranges.calibrated`) or from training.
        means: of values over the calibration data, by name (:class:`.statistics.Statistics`). The biases of
            the layers that read them are corrected by the mean error of the rounded weights.

    Raises:
        QuantizationError: a weight or bias does not fit, or an operator does not accept another's output; it
            names the module.
    """
    plan, graph, tensors = QuantizationPlan(graph), graph.copy(), {}
    for value in graph.values.values():
        value.quantization, value.dropouts = plan.quantization(value.name, choose), ()
    for node in graph.nodes:
        try:
            known = [means[name] for name in node.inputs if name in means]
            layer = replace(graph.layer(node), means=known if len(known) == len(node.inputs) else ())
            tensors[node.name] = layer.quantize()
        except (TorchNanoError, NanoError) as error:
            raise in_module(error, graph.module_path(node)) from error
        node.parameters = {}
    channels = _channel_scales(graph)
    graph.parameters, graph.derived, graph.affines, graph.dtypes = {}, {}, {}, {}
    return QuantizedGraph(graph, tensors, channels)


def _channel_scales(graph: Graph) -> dict[str, ChannelScales]:
    """The scales of the inputs that have affines."""
    channels = {}
    for name in graph.inputs:
        affine = graph.factor_and_shift(name)
        if affine is not None:
            try:
                channels[name] = ChannelScales.of_affine(*affine, graph.quantization(name))
            except QuantizationError as error:
                raise QuantizationError(f"input {name!r}: {error}") from error
    return channels
