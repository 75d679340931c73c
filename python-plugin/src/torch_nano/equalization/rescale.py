"""Scales channels of a graph's values without changing what it computes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..ir.graph import Graph, Node, new_name
from ..ops._channels import ChannelsOperator


def rescale(graph: Graph, factors: Mapping[str, Tensor]) -> Graph:
    """The graph with scaled channels: the layers with weights scale their output channels, and undo the
    scaling of their input's.

    Args:
        factors: of the channels of values, by name: float32 [channels], from :func:`.factors.choose_factors`.
    """
    graph = graph.copy()
    for node in graph.nodes:
        if isinstance(node.operator, ChannelsOperator) and not factors.keys().isdisjoint(
            (node.inputs[0], node.output)
        ):
            _rescale_layer(graph, node, node.operator, factors)
    for name, chosen in factors.items():
        graph.values[name].factors = tuple(chosen.tolist())
    graph.drop_unused()
    return graph


def _rescale_layer(
    graph: Graph, node: Node, operator: ChannelsOperator, factors: Mapping[str, Tensor]
) -> None:
    tensors = {role: graph.parameters[name] for role, name in node.parameters.items()}
    if node.inputs[0] in factors:
        tensors["weight"] = operator.scale_inputs(tensors["weight"], 1.0 / factors[node.inputs[0]])
    if node.output in factors:
        tensors["weight"] = operator.scale_outputs(tensors["weight"], factors[node.output])
        if "bias" in tensors:
            tensors["bias"] = tensors["bias"] * factors[node.output]
    for role, tensor in tensors.items():
        name = new_name(f"{node.parameters[role]}.rescaled", graph.parameters)
        graph.parameters[name] = tensor.contiguous()
        node.parameters[role] = name
