"""Writes a quantized graph as a `.nano` image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from .. import _native
from ..arguments import shown
from ..calibration.quantize import QuantizedGraph
from ..errors import HeadError, InputError, QuantizationError, TorchNanoError, in_module
from ..ir.description import describe_layer, describe_model, describe_value
from ..ir.graph import Node
from ..ops.move import is_free
from .optimization import Optimization

#: The most bytes of constants in RAM that can be asked for.
MOST_IN_RAM = 2**31 - 1
_FASTEST = Optimization()


def layers(model: QuantizedGraph) -> list[Node]:
    """The nodes that are described as layers of the image, in its order: all but moves that cost nothing
    there. The image may have one layer for two of them, see :func:`made_of`.
    """
    return [node for node in model.graph.nodes if not is_free(model.graph, node)]


def made_of(graph: QuantizedGraph, model: _native.Model) -> Iterator[tuple[_native.LayerEntry, list[Node]]]:
    """Each layer of a graph's image, and the nodes that it computes: the last one writes its outputs."""
    nodes = iter(layers(graph))
    for entry in model.layers:
        yield entry, list(itertools.islice(nodes, entry["described_layers"]))


def write_image(
    model: QuantizedGraph,
    head: dict[str, Any] | None,
    name: str,
    labels: list[str],
    weights_in_ram: int = 0,
    optimization: Optimization = _FASTEST,
) -> _native.Model:
    """The checked image of a quantized graph. nano-core plans the memory and packs the constants.

    Args:
        model: the graph.
        head: the description of a trainable head after the graph's output, in the device's order.
        name: the model's name.
        labels: the names of the classes.
        weights_in_ram: bytes of RAM for copies of layers' constants, at most.
        optimization: how the layers' kernels are chosen.

    Raises:
        InputError: an input or an output has a name that an image cannot hold.
        HeadError: nano-core refuses a setting of the head for this model.
        QuantizationError: nano-core refuses a layer; the message names its module and says why.
    """
    graph = model.graph
    for kind, names in (("argument of forward", graph.inputs), ("key of the outputs", graph.returned.names)):
        _check_names(kind, names)
    description = describe(model, head, name, labels, weights_in_ram, optimization)
    try:
        return _native.Model(_native.write_image(description))
    except _native.SettingError as error:
        raise HeadError(str(error)) from error
    except _native.NanoError as error:
        raise _refusal(model, description, error) from error


def describe(
    model: QuantizedGraph,
    head: dict[str, Any] | None,
    name: str,
    labels: list[str],
    weights_in_ram: int,
    optimization: Optimization,
) -> dict[str, Any]:
    """The description that :func:`write_image` writes."""
    ids, graph = _value_ids(model), model.graph
    return describe_model(
        {value: _value(model, value) for value in graph.inputs},
        [_layer(model, node, ids) for node in layers(model)],
        {name: ids[value] for name, value in zip(graph.returned.names, graph.outputs, strict=True)},
        name=name,
        labels=labels,
        head=head,
        channels=model.channels,
        weights_in_ram=weights_in_ram,
        optimization=optimization.described(),
    )


def is_name(name: object) -> bool:
    """Whether an image, and a device, can hold it as the name of a class, a model, an input or an output."""
    try:
        return isinstance(name, str) and _native.is_label(name)
    except UnicodeEncodeError:  # Half of a surrogate pair, which UTF-8 does not have.
        return False


def _check_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not is_name(name):
            raise InputError(
                f"a {kind} is called {shown(name)}; an image names inputs and outputs in 1 to "
                f"{_native.LONGEST_NAME} bytes of UTF-8, on one line and without a zero: give it another name"
            )


def _refusal(model: QuantizedGraph, description: dict[str, Any], error: Exception) -> TorchNanoError:
    """The error for a model that nano-core refuses, with the first layer that it also refuses alone."""
    ids, inputs = _value_ids(model), {entry["name"]: entry["value"] for entry in description["inputs"]}
    for count, node in enumerate(layers(model), 1):
        alone = describe_model(inputs, description["layers"][:count], {"output": ids[node.name]})
        try:
            _native.Model(_native.write_image(alone))
        except _native.NanoError as refusal:
            return in_module(refusal, model.graph.module_path(node))
    return QuantizationError(f"nano-core refuses the model: {error}")


def _value_ids(model: QuantizedGraph) -> dict[str, int]:
    """Ids of the values: the inputs, then the outputs of each layer; a free move's has that of its input."""
    ids = {name: index for index, name in enumerate(model.graph.inputs)}
    count = len(ids)
    for node in model.graph.nodes:
        if is_free(model.graph, node):
            ids[node.output] = ids[node.inputs[0]]
        else:
            for name in node.outputs:
                ids[name], count = count, count + 1
    return ids


def _value(model: QuantizedGraph, name: str) -> dict[str, Any]:
    return describe_value(model.graph.values[name].shape, model.graph.quantization(name))


def _layer(model: QuantizedGraph, node: Node, ids: dict[str, int]) -> dict[str, Any]:
    arrays = {name: tensor.contiguous().numpy() for name, tensor in model.tensors[node.name].items()}
    try:
        return describe_layer(
            model.graph.layer(node),
            [ids[name] for name in node.inputs],
            [_value(model, name) for name in node.outputs],
            arrays,
        )
    except QuantizationError as error:
        raise in_module(error, model.graph.module_path(node)) from error
