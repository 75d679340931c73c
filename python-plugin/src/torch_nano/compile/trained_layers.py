"""The layers at the end of a graph that learn together, and those between them, described for nano-core."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from ..arithmetic.layout import device_shape
from ..calibration.ranges import Bounds
from ..errors import HeadError
from ..ir.graph import Graph, Node
from ..ops._channels import ChannelsOperator
from ..ops.add import Add
from ..ops.average_pool2d import AveragePool2d
from ..ops.conv2d import Conv2d
from ..ops.depthwise_conv2d import DepthwiseConv2d
from ..ops.fully_connected import FullyConnected
from ..ops.max_pool2d import MaxPool2d
from ..ops.move import is_free

_OPERATIONS = {
    FullyConnected: "convolution",
    Conv2d: "convolution",
    DepthwiseConv2d: "depthwise",
    AveragePool2d: "average_pool",
    MaxPool2d: "max_pool",
    Add: "add",
}


def trained_nodes(graph: Graph, count: int) -> list[Node]:
    """The nodes from the first to the last of the `count` last layers with weights, moves that are free left
    out.

    Raises:
        HeadError: the model does not end in so many such layers.
    """
    nodes: list[Node] = []
    seen: list[Node] = []
    value, found = graph.outputs[0], 0
    while found < count:
        node = graph.producer(value)
        reason = _refusal(graph, node, value, seen)
        if node is None or reason:
            raise _cannot(count, found, reason)
        seen.append(node)
        if not is_free(graph, node):
            nodes.insert(0, node)
        found += has_weights(node)
        value = _main(graph, node)
    features = nodes[0].inputs[0]
    known = {features, _bytes_of(graph, features), *(node.output for node in nodes)}
    for node in nodes:
        if isinstance(node.operator, Add) and _bytes_of(graph, _other(graph, node)) not in known:
            raise _cannot(
                count,
                0,
                f"{_name(graph, node)} adds what is computed before them; a larger or smaller "
                "train_last does not end inside of that block",
            )
    return nodes


def described(
    graph: Graph, nodes: Sequence[Node], ranges: Mapping[str, Bounds], learning: Container[str] | None = None
) -> list[dict[str, Any]]:
    """The layers of :func:`trained_nodes`.

    Args:
        ranges: of the outputs between them.
        learning: names of the nodes whose weights learn; None: all that have weights.
    """
    features = nodes[0].inputs[0]
    numbers = {_bytes_of(graph, features): 0, features: 0}
    numbers |= {node.output: number for number, node in enumerate(nodes, 1)}
    return [
        {
            **_described(graph, node, numbers, ranges),
            "learns": has_weights(node) and (learning is None or node.name in learning),
        }
        for node in nodes
    ]


def has_weights(node: Node) -> bool:
    """Whether a layer has weights that can learn."""
    return isinstance(node.operator, FullyConnected | Conv2d | DepthwiseConv2d)


def _described(
    graph: Graph, node: Node, numbers: Mapping[str, int], ranges: Mapping[str, Bounds]
) -> dict[str, Any]:
    operator = node.operator
    (before, after), kernel, stride, padding = _shapes(graph, node), (1, 1), (1, 1), (0, 0)
    if isinstance(operator, FullyConnected):
        before, after = device_shape(operator.flattened or (before[2],)), (1, 1, after[2])
        kernel = before[:2]
    elif isinstance(operator, Conv2d | DepthwiseConv2d | AveragePool2d | MaxPool2d):
        kernel, stride = operator.kernel, operator.stride
        padding = operator.padding[0], operator.padding[2]
    low, high = ranges.get(node.output, (0.0, 0.0))
    weights, biases = _weights(graph, node)
    # A pool clamps nothing; that its outputs are never negative says how they are quantized.
    clamp_low = 0.0 if isinstance(operator, AveragePool2d | MaxPool2d) and low >= 0 else None
    return {
        "operation": _OPERATIONS[type(operator)],
        "other": numbers[_bytes_of(graph, _other(graph, node))] if isinstance(operator, Add) else 0,
        "input": before,
        "output": after,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "weights": weights,
        "biases": biases,
        "clamp_low": getattr(operator, "clamp_low", clamp_low),
        "clamp_high": getattr(operator, "clamp_high", None),
        "range": (low, high),
    }


def _weights(graph: Graph, node: Node) -> tuple[Any, Any]:
    """Weights [outputs, inputs] in the device's order, and biases; depthwise [channels, taps]."""
    operator = node.operator
    if not has_weights(node):
        return np.zeros((0, 1), np.float32), np.zeros(0, np.float32)
    assert isinstance(operator, ChannelsOperator)
    weight = operator.to_device_weight(graph.parameters[node.parameters["weight"]])
    bias = node.parameters.get("bias")
    biases = np.zeros(len(weight), np.float32) if bias is None else graph.parameters[bias].numpy()
    return weight.reshape(len(weight), -1).contiguous().numpy(), biases


def _shapes(graph: Graph, node: Node) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    before, after = (device_shape(graph.values[name].shape) for name in (node.inputs[0], node.output))
    return before, after


def _bytes_of(graph: Graph, value: str) -> str:
    """The value whose bytes this one has, before moves that are free."""
    node = graph.producer(value)
    while node is not None and is_free(graph, node):
        value = node.inputs[0]
        node = graph.producer(value)
    return value


def _main(graph: Graph, node: Node) -> str:
    """The input that leads to the layers before; of an addition the one that is computed from the other."""
    if isinstance(node.operator, Add) and _precedes(graph, node.inputs[0], node.inputs[1]):
        return node.inputs[1]
    return node.inputs[0]


def _other(graph: Graph, node: Node) -> str:
    """The other input of an addition."""
    main = _main(graph, node)
    return node.inputs[1] if node.inputs[0] == main else node.inputs[0]


def _precedes(graph: Graph, value: str, later: str) -> bool:
    """Whether `later` is computed from a value, or is it."""
    waiting = [later]
    while waiting:
        name = waiting.pop()
        if name == value:
            return True
        node = graph.producer(name)
        waiting.extend([] if node is None else node.inputs)
    return False


def _cannot(count: int, found: int, reason: str) -> HeadError:
    return HeadError(
        f"train_last={count} needs {count} layers that are Linear or convolutions at the end of the model, "
        "with nothing but pools, residual additions and activations that clamp (ReLU, ReLU6) between them, "
        f"but {reason}; " + (f"train_last={found} is what it can train" if found else "end it in a Linear")
    )


def _name(graph: Graph, node: Node) -> str:
    return f"{node.operator.name} ({graph.values[node.output].module_path or 'the model itself'})"


def _refusal(graph: Graph, node: Node | None, value: str, seen: Sequence[Node]) -> str:
    """Why a node cannot be trained, or stand between trained layers; "" if it can."""
    if node is None:
        return "there is nothing in front of the others but the model's input"
    name, last = _name(graph, node), all(is_free(graph, other) for other in seen)
    readers = graph.consumers(value)
    if any(reader not in seen for reader in readers) or (last and not seen and readers):
        return f"the output of {name} is read elsewhere too"
    if is_free(graph, node):
        return ""
    operator = node.operator
    if type(operator) not in _OPERATIONS or (last and not isinstance(operator, FullyConnected)):
        return f"{name} stands there"
    if isinstance(operator, Conv2d | DepthwiseConv2d) and operator.dilation != (1, 1):
        return f"{name} has a dilation"
    if isinstance(operator, Conv2d) and operator.groups != 1:
        return f"{name} has groups"
    if isinstance(operator, AveragePool2d) and any(operator.padding):
        return f"{name} is padded"
    if isinstance(operator, MaxPool2d) and operator.dilation != (1, 1):
        return f"{name} has a dilation"
    squeezed = isinstance(operator, AveragePool2d | MaxPool2d) and operator.squeezed
    if squeezed and device_shape(graph.values[value].shape)[:2] != (1, 1):
        return f"{name} reduces one dimension alone"
    if isinstance(operator, Add) and not _is_residual(graph, node):
        return f"{name} adds two branches with layers of their own, or of two shapes"
    if last and graph.values[value].layout is not None:
        return f"the model returns the result of {name} in another shape or order"
    if last and isinstance(operator, FullyConnected) and operator.without_clamp() != operator:
        return f"an activation follows {name}"
    derived = [parameter for parameter in node.parameters.values() if parameter in graph.derived]
    if derived:
        return (
            f"{name} has weights that are computed of others (a batch norm after it, weight_norm, prune), "
            "which the device does not train (fuse it with torch.nn.utils.fusion.fuse_conv_bn_eval, or "
            "torch.nn.utils.parametrize.remove_parametrizations)"
        )
    return ""


def _is_residual(graph: Graph, node: Node) -> bool:
    """Whether one term of an addition is computed from the other, of the same shape."""
    first, second = node.inputs
    same = graph.values[first].shape == graph.values[second].shape == graph.values[node.output].shape
    return same and (_precedes(graph, first, second) or _precedes(graph, second, first))
