"""The float graph of which a quantized graph was made."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from ..calibration.calibrate import check_parameters
from ..calibration.quantize import QuantizedGraph
from ..capture.capture import capture
from ..capture.passes import optimize
from ..capture.passes.insert_requantize import dtypes_of, with_dtypes
from ..equalization.rescale import rescale
from ..errors import InputError
from ..ir.graph import Graph, Node
from ..modules.inputs import Example
from ..modules.models import check_float, own_module
from ..ops.move import is_free
from .module_with_ranges import ModuleWithRanges
from .saved_model import SavedHead


def float_graph_of(model: nn.Module, quantized: QuantizedGraph, head: SavedHead | None) -> Graph:
    """The optimized graph of a model in float, with the values of the quantized graph that was made from it,
    scaled as these are.

    Args:
        head: the layers that were split off the quantized graph.

    Raises:
        InputError: the quantized graph was made from another model.
        CaptureError, UnsupportedError: the model cannot be captured.
        NonFiniteError: NaN or infinity in a weight.
    """
    model = own_module(model)
    made = quantized.graph
    if isinstance(model, ModuleWithRanges):
        graph = model.float_graph()
    else:
        check_float(model)
        graph = with_dtypes(optimize(capture(model, _example(model, made))), dtypes_of(made))
    check_parameters(graph)
    counterparts = {node.name: node for node in graph.nodes}
    for name in made.inputs:
        if name not in graph.inputs or graph.values[name].shape != made.values[name].shape:
            raise _other_model(f"it takes {', '.join(graph.inputs)}, and this {', '.join(made.inputs)}")
    for node in made.nodes:
        counterpart = counterparts.get(node.name)
        if (
            counterpart is None
            or (counterpart.operator, counterpart.inputs, counterpart.outputs)
            != (node.operator, node.inputs, node.outputs)
            or any(graph.values[name].shape != made.values[name].shape for name in node.outputs)
        ):
            raise _other_model(f"{_title(made, node)} differs")
    _check_end(graph, made, head)
    factors = {value.name: torch.tensor(value.factors) for value in made.values.values() if value.factors}
    return rescale(graph, factors) if factors else graph


def _check_end(graph: Graph, made: Graph, head: SavedHead | None) -> None:
    """Checks that a model has no other layers after those of the quantized graph than a head.

    Raises:
        InputError: it has.
    """
    known = {node.name for node in made.nodes}
    added = [node for node in graph.nodes if node.name not in known and not is_free(graph, node)]
    learning = [] if head is None else head.path.split(", ")
    # A head of one layer has no activation, and may have learnt further classes.
    layers = [] if head is None else head.description.get("layers", [{}])
    found = [graph.module_path(node) for node in added]
    if len(layers) == len(added):
        found = [path for path, layer in zip(found, layers, strict=True) if layer.get("learns", True)]
    if len(layers) != len(added) or found != learning or (head is None and graph.outputs != made.outputs):
        raise _other_model(f"it ends in {_named(found)}, and this in {_named(learning)}")
    for node, layer in zip(added, layers, strict=True):
        width = graph.values[node.output].shape[0]
        # Of a pool, which clamps nothing, the description says by "clamp_low" how its outputs are quantized.
        low = getattr(node.operator, "clamp_low", layer.get("clamp_low"))
        clamp = low, getattr(node.operator, "clamp_high", None)
        if (width, clamp) != (
            layer.get("output", (1, 1, width))[2],
            (layer.get("clamp_low"), layer.get("clamp_high")),
        ):
            raise _other_model(f"{_title(graph, node)} differs")


def _title(graph: Graph, node: Node) -> str:
    path = graph.module_path(node)
    return f"{f'module {path!r}' if path else 'the model itself'} ({node.operator.name})"


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths)) or "the layers before"


def _example(model: nn.Module, made: Graph) -> Example:
    """Inputs of a graph, as the model takes them."""
    tensors = {
        value.name: torch.zeros(2, *value.user_shape, dtype=value.user_dtype)
        for value in map(made.values.__getitem__, made.inputs)
    }
    # The tensors of a forward(*inputs) have names in the graph only.
    if len(tensors) > 1 and tensors.keys() <= inspect.signature(model.forward).parameters.keys():
        return tensors
    first, *others = tensors.values()
    return (first, *others) if others else first


def _other_model(difference: str) -> InputError:
    return InputError(
        f"model is not the one that this was made from: {difference}; expected the module that to_nano was "
        "given"
    )
