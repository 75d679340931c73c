"""Takes the last layers off a graph, for a device to train them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .errors import HeadError
from .graph.structural import Reshape
from .heads import SGD
from .ir.graph import Graph, Node
from .ops._channels import ChannelsOperator
from .ops.conv2d import Conv2d
from .ops.fully_connected import FullyConnected

#: Real range of a value, by name.
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class LastLayers:
    """What was taken off."""

    #: What nano-core's writer takes.
    description: dict[str, Any]
    #: Paths of the modules, in order.
    paths: tuple[str, ...]


def take_last_layers(graph: Graph, count: int, settings: SGD, ranges: Ranges) -> LastLayers:
    """Takes the last `count` Linear layers and 1x1 convolutions off a graph, whose output is then what they
    see.

    Args:
        graph: it is changed.
        settings: how they learn.
        ranges: of the outputs between them.

    Raises:
        HeadError: the model does not end in so many such layers, one behind the other.
    """
    if len(graph.outputs) > 1:
        raise HeadError(
            f"train_last={count} needs a model that returns one tensor; it returns {len(graph.outputs)}"
        )
    nodes: list[Node] = []
    value = graph.outputs[0]
    while len(nodes) < count:
        node = graph.producer(value)
        reason = _refusal(graph, node, value, last=not nodes)
        if node is None or reason:
            raise HeadError(
                f"train_last={count} needs {count} Linear layers or 1x1 convolutions at the end of the "
                f"model, with nothing but activations that clamp (ReLU, ReLU6) between them, but {reason}; "
                + (f"train_last={len(nodes)} is what it can train" if nodes else "end it in a Linear")
            )
        if not isinstance(node.operator, Reshape):
            nodes.insert(0, node)
        value = node.inputs[0]
    layers = [_layer(graph, node, ranges) for node in nodes]
    paths = tuple(graph.module_path(node) for node in nodes)
    graph.outputs = [nodes[0].inputs[0]]
    graph.drop_unused()
    description = {
        "trainer": "layers",
        "layers": layers,
        **{key: item for key, item in asdict(settings).items() if key != "layer"},
        "halve_every": settings.halve_every or 0,
        "class_weights": list(settings.class_weights),
        "frozen": list(settings.frozen),
    }
    return LastLayers(description, paths)


def _refusal(graph: Graph, node: Node | None, value: str, last: bool) -> str:
    """Why a node cannot be trained, or stand between what is; "" if it can."""
    if node is None:
        return "there is nothing in front of the others but the model's input"
    name = f"{node.operator.name} ({graph.values[value].module_path or 'the model itself'})"
    if (not last and len(graph.consumers(value)) > 1) or (last and graph.consumers(value)):
        return f"the output of {name} is read elsewhere too"
    if isinstance(node.operator, Reshape):
        return ""
    if not isinstance(node.operator, FullyConnected | Conv2d):
        return f"{name} stands there"
    if isinstance(node.operator, Conv2d):
        operator = node.operator
        if operator != Conv2d((1, 1), clamp_low=operator.clamp_low, clamp_high=operator.clamp_high):
            return f"{name} is no 1x1 convolution without stride, padding and groups"
    if last and node.operator.without_clamp() != node.operator:
        return f"an activation stands behind {name}"
    derived = [parameter for parameter in node.parameters.values() if parameter in graph.derived]
    if derived:
        return (
            f"{name} has a batch norm behind it, which the device does not train "
            "(torch.nn.utils.fusion.fuse_conv_bn_eval makes one layer of both)"
        )
    return ""


def _layer(graph: Graph, node: Node, ranges: Ranges) -> dict[str, Any]:
    operator = node.operator
    assert isinstance(operator, ChannelsOperator)
    weight = operator.to_device_weight(graph.parameters[node.parameters["weight"]])
    bias = node.parameters.get("bias")
    pixels = graph.values[node.output].shape[1:] if isinstance(operator, Conv2d) else ()
    return {
        "positions": int(torch.Size(pixels).numel()),
        "weights": weight.reshape(len(weight), -1).contiguous().numpy(),
        "biases": np.zeros(len(weight), np.float32) if bias is None else graph.parameters[bias].numpy(),
        "clamp_low": operator.clamp_low,
        "clamp_high": operator.clamp_high,
        "range": ranges.get(node.output, (0.0, 0.0)),
    }
