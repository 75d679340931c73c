"""The rows of a model's summary: cost and memory of each layer."""

from __future__ import annotations

from .. import _native
from ..calibration.quantize import QuantizedGraph
from ..heads import Head
from .image import made_of
from .memory_map import arena_in_use
from .summary import LayerSummary


def layer_rows(graph: QuantizedGraph, model: _native.Model) -> list[LayerSummary]:
    """The layers of an image, in its order."""
    rows = []
    described = zip(made_of(graph, model), arena_in_use(model), strict=True)
    for (entry, nodes), arena_bytes in described:
        values = [graph.graph.values[node.name] for node in nodes]
        value = values[-1]
        rows.append(
            LayerSummary(
                operator=entry["operator"],
                module_path=" + ".join(dict.fromkeys(made.module_path for made in values)),
                output_shape=value.shape,
                dtype=graph.graph.quantization(value.name).dtype,
                macs=entry["macs"],
                weight_bytes=entry["constant_bytes"],
                arena_bytes=arena_bytes,
                kernel=entry["kernel"],
                memory="flash, RAM" if entry["constants_in_ram"] else "flash",
            )
        )
    return rows


def head_row(head: Head, path: str) -> LayerSummary:
    """The trainable head, in RAM."""
    return LayerSummary(
        operator=head.name,
        module_path=path,
        output_shape=(head.classes,),
        dtype="int8",
        macs=head.macs,
        weight_bytes=len(head.state()),
        arena_bytes=0,
        kernel=head.name,
        memory="RAM",
    )
