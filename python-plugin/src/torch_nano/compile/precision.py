"""The dtypes that users want of a model's layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from torch import nn

from ..arguments import mapping, shown
from ..arithmetic.quantization import Dtype
from ..capture.passes.insert_requantize import with_dtypes
from ..errors import InputError, QuantizationError
from ..ir.graph import Graph
from ..ir.precision import LayerDtype, Precision, as_precision, computing_nodes, offers
from ..ir.rules import SameAs, Shared
from ..modules.names import matching_modules


def with_precision(graph: Graph, model: nn.Module, precision: Precision | None) -> Graph:
    """An optimized graph whose layers compute in the dtypes wanted of their modules.

    Args:
        model: from which the graph was captured.

    Raises:
        ModuleNameError: an entry matches no module.
        InputError: an entry has another dtype, or its modules have no layer of their own.
        QuantizationError: an operator of such a module has no kernel of that dtype.
    """
    paths = _dtypes_by_path(graph, model, precision)
    wanted = {
        node.name: paths[graph.module_path(node)]
        for node in computing_nodes(graph)
        if graph.module_path(node) in paths
    }
    _check_offers(graph, wanted)
    return with_dtypes(graph, with_inputs(graph, wanted))


def with_inputs(graph: Graph, wanted: Mapping[str, LayerDtype]) -> dict[str, Dtype]:
    """The dtypes wanted of nodes, and int16 for the inputs of the graph that only nodes in int16 read."""
    inputs = {name: "int16" for name in graph.inputs if _is_read_in_int16(graph, name, wanted)}
    return {**wanted, **inputs}  # type: ignore[dict-item]  # mypy widens the literal


def _is_read_in_int16(graph: Graph, value: str, wanted: Mapping[str, LayerDtype]) -> bool:
    """Whether all readers of a value take int16, those after data movement included."""
    readers = graph.consumers(value)
    return (
        bool(readers)
        and value not in graph.outputs
        and all(
            wanted[node.name] == "int16"
            if node.name in wanted
            else isinstance(node.operator.rules[0], SameAs | Shared)
            and offers(node, "int16")
            and _is_read_in_int16(graph, node.name, wanted)
            for node in readers
        )
    )


def _dtypes_by_path(graph: Graph, model: nn.Module, precision: Precision | None) -> dict[str, LayerDtype]:
    """The dtype of each module, by its path."""
    expected = "a dict of dtypes by the names of modules, {'features.0': 'int16'}, or 'auto'"
    computing = {graph.module_path(node) for node in computing_nodes(graph)}
    dtypes: dict[str, LayerDtype] = {}
    for pattern, dtype in mapping("precision", precision, expected, error=InputError).items():
        if dtype not in get_args(LayerDtype):
            offered = " or ".join(map(repr, get_args(LayerDtype)))
            raise InputError(f"precision of {pattern!r} is {shown(dtype)}; expected {offered}")
        inside = {part for module in matching_modules(model, [pattern]) for part in module.modules()}
        paths = {name for name, part in model.named_modules(remove_duplicate=False) if part in inside}
        if computing.isdisjoint(paths):
            raise InputError(
                f"precision of {pattern!r}: no layer of the device is made of it, as activations and batch "
                "norms become a part of the layer before, and data movement takes the dtype of its input; "
                f"expected modules with layers: {', '.join(map(repr, sorted(computing)))}"
            )
        dtypes |= dict.fromkeys(paths, dtype)
    return dtypes


def _check_offers(graph: Graph, wanted: Mapping[str, LayerDtype]) -> None:
    """Checks that all nodes have kernels of the dtypes that are wanted."""
    refused = [node for node in graph.nodes if node.name in wanted and not offers(node, wanted[node.name])]
    if not refused:
        return
    places = dict.fromkeys(graph.module_path(node) for node in refused)
    operators = list(dict.fromkeys(node.operator.name for node in refused))
    dtypes = {graph.module_path(node): wanted.get(node.name, "int8") for node in computing_nodes(graph)}
    # Roots of squares are int16 unless int8 is asked for.
    asked = {graph.module_path(node) for node in graph.nodes if wanted.get(node.name) == "int8"}
    precision = as_precision({**dtypes, **dict.fromkeys(places, "int8")}, asked)
    error = QuantizationError(
        f"{', '.join(operators)} of {', '.join(map(_title, places))} "
        f"{'computes' if len(operators) == 1 else 'compute'} in int8 only; "
        + (f"give 16 bits to the others: precision={precision}" if precision else "leave precision out")
    )
    error.module_path = graph.module_path(refused[0])
    raise error


def _title(path: str) -> str:
    return f"module {path!r}" if path else "the model itself"
