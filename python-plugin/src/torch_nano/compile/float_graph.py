"""The float graph of which a quantized graph was made."""

from __future__ import annotations

import torch
from torch import nn

from ..calibration.calibrate import check_parameters
from ..calibration.quantize import QuantizedGraph
from ..capture.capture import capture
from ..capture.passes import optimize
from ..capture.passes.insert_requantize import dtypes_of, with_dtypes
from ..equalization.rescale import rescale
from ..errors import InputError
from ..ir.graph import Graph
from ..modules.models import check_float, own_module
from .module_with_ranges import ModuleWithRanges


def float_graph_of(model: nn.Module, quantized: QuantizedGraph) -> Graph:
    """The optimized graph of a model in float, with the values of the quantized graph that was made from it,
    scaled as these are.

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
        example = {
            value.name: torch.zeros(2, *value.user_shape, dtype=value.user_dtype)
            for value in map(made.values.__getitem__, made.inputs)
        }
        graph = optimize(capture(model, example if len(example) > 1 else example[made.inputs[0]]))
        graph = with_dtypes(graph, dtypes_of(made))
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
            path = made.module_path(node)
            raise _other_model(
                f"{f'module {path!r}' if path else 'the model itself'} ({node.operator.name}) differs"
            )
    factors = {value.name: torch.tensor(value.factors) for value in made.values.values() if value.factors}
    return rescale(graph, factors) if factors else graph


def _other_model(difference: str) -> InputError:
    return InputError(
        f"model is not the one that this was made from: {difference}; expected the module that to_nano was "
        "given"
    )
