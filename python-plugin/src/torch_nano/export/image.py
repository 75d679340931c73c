"""From a quantized graph to a `.nano` image."""

from __future__ import annotations

from typing import Any

from .. import _native
from ..errors import HeadError, QuantizationError, TorchNanoError, in_module
from ..graph.structural import Reshape
from ..ops.layout import device_shape
from ..ops.operator import Node
from ..quant.quantize import QuantizedGraph
from ..quant.ranges import quantization_of


def layers(model: QuantizedGraph) -> list[Node]:
    """The nodes that are layers of the image, in its order: all but reshapes, which cost nothing there."""
    return [node for node in model.graph.nodes if not isinstance(node.operator, Reshape)]


def write_image(
    model: QuantizedGraph, head: dict[str, Any] | None, name: str, labels: list[str]
) -> _native.Model:
    """The image of a quantized graph, checked. Memory is planned and constants are packed by nano-core.

    Args:
        model: the graph.
        head: what the settings of a trainable head describe, on the graph's output in the device's order.
        name: the model's name.
        labels: the names of the classes.

    Raises:
        HeadError: nano-core refuses a setting of the head for this model.
        QuantizationError: nano-core refuses a layer; the message names its module and says why.
    """
    ids = _value_ids(model)
    description = {
        "name": name,
        "labels": labels,
        "inputs": [_value(model, name) for name in model.graph.inputs],
        "layers": [_layer(model, node, ids) for node in layers(model)],
        "outputs": [ids[name] for name in model.graph.outputs],
        "head": head,
    }
    try:
        return _native.Model(_native.write_image(description))
    except _native.SettingError as error:
        raise HeadError(str(error)) from error
    except _native.NanoError as error:
        raise _refusal(model, description, error) from error


def _refusal(model: QuantizedGraph, description: dict[str, Any], error: Exception) -> TorchNanoError:
    """The error for a model that nano-core refuses: it names the first layer that it refuses by itself."""
    inputs = len(model.graph.inputs)
    for count, node in enumerate(layers(model)):
        kept = {"inputs": description["inputs"], "layers": description["layers"][: count + 1]}
        alone = {**kept, "outputs": [inputs + count], "head": None, "name": "", "labels": []}
        try:
            _native.Model(_native.write_image(alone))
        except _native.NanoError as refusal:
            return in_module(refusal, model.graph.values[node.output].module_path)
    return QuantizationError(f"nano-core refuses the model: {error}")


def _value_ids(model: QuantizedGraph) -> dict[str, int]:
    """Ids of the values: the inputs, then the output of each layer; a reshape has the id of its input."""
    ids = {name: index for index, name in enumerate(model.graph.inputs)}
    count = len(ids)
    for node in model.graph.nodes:
        if isinstance(node.operator, Reshape):
            ids[node.output] = ids[node.inputs[0]]
        else:
            ids[node.output], count = count, count + 1
    return ids


def _value(model: QuantizedGraph, name: str) -> dict[str, Any]:
    quantization = quantization_of(model.graph, name)
    shape = device_shape(model.graph.values[name].shape)
    return {"shape": shape, "scale": quantization.scale, "zero_point": quantization.zero_point}


def _layer(model: QuantizedGraph, node: Node, ids: dict[str, int]) -> dict[str, Any]:
    return {
        "operator": node.operator.name,
        "inputs": [ids[name] for name in node.inputs],
        "output": _value(model, node.output),
        "attributes": node.operator.attributes(quantization_of(model.graph, node.output)),
        "tensors": {name: tensor.contiguous().numpy() for name, tensor in model.tensors[node.output].items()},
    }
