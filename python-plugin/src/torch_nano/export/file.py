"""The file of a NanoModule: the image, and what Python knows beyond it.

A line with the format's version, the SHA-256 of the rest, and the rest: a numpy archive with the image, the
head's state, the graph as JSON, and the layers' constants.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .. import _native
from ..errors import FileFormatError
from ..graph.graph import Graph
from ..ops.encoding import decode, encode
from ..ops.operator import Node, Quantization, Value
from ..quant.quantize import QuantizedGraph

_NAME = b"torch-nano model "
_FIRST_LINE = _NAME + b"1\n"
_DIGEST_LENGTH = hashlib.sha256().digest_size


@dataclass
class SavedModel:
    """What a NanoModule is made of."""

    image: bytes
    graph: QuantizedGraph
    #: Module path of the trainable head and its present state; None without one.
    head: tuple[str, bytes] | None


def pack(model: SavedModel) -> bytes:
    """A model as the bytes of its file."""
    graph = model.graph.graph
    description = {
        "head": None if model.head is None else model.head[0],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "values": [_without_dropouts(value) for value in graph.values.values()],
        "nodes": [
            {**encode(node.operator), "inputs": node.inputs, "output": node.output} for node in graph.nodes
        ],
    }
    arrays = {
        "image": np.frombuffer(model.image, np.uint8),
        "graph": np.frombuffer(json.dumps(description).encode(), np.uint8),
    }
    if model.head is not None:
        arrays["head"] = np.frombuffer(model.head[1], np.uint8)
    for index, node in enumerate(graph.nodes):
        for name, tensor in model.graph.tensors[node.output].items():
            arrays[f"{index}.{name}"] = tensor.numpy()
    archive = io.BytesIO()
    # The names of the arrays are ours: none is one of savez's own parameters.
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    body = archive.getvalue()
    return _FIRST_LINE + hashlib.sha256(body).digest() + body


def unpack(content: bytes) -> SavedModel:
    """Undoes :func:`pack`.

    Raises:
        FileFormatError: the bytes are no saved model, are damaged, or come from another version.
    """
    if not content.startswith(_FIRST_LINE):
        if content.startswith(_NAME):
            version = content[len(_NAME) : len(_NAME) + 8].split(b"\n")[0].decode(errors="replace")
            raise FileFormatError(
                f"a model of file format {version}; this version reads format 1: save the model again"
            )
        raise FileFormatError(
            f"{len(content)} bytes that are no saved model; expected a file that NanoModule.save wrote"
        )
    digest, body = content[len(_FIRST_LINE) :][:_DIGEST_LENGTH], content[len(_FIRST_LINE) + _DIGEST_LENGTH :]
    if hashlib.sha256(body).digest() != digest:
        raise FileFormatError(
            f"a damaged file ({len(content)} bytes): its checksum is wrong; save or copy it again"
        )
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        image = arrays.pop("image").tobytes()
        _native.Model(image)
        description = json.loads(arrays.pop("graph").tobytes())
        head_state = arrays.pop("head").tobytes() if description["head"] is not None else b""
        graph = _graph(description, arrays)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise FileFormatError(
            f"a saved model that this version cannot read: {type(error).__name__}: {error}"
        ) from error
    return SavedModel(
        image, graph, None if description["head"] is None else (description["head"], head_state)
    )


def _graph(description: dict[str, Any], arrays: dict[str, Any]) -> QuantizedGraph:
    values = {entry["name"]: _value(entry) for entry in description["values"]}
    nodes = [Node(decode(entry), entry["inputs"], entry["output"]) for entry in description["nodes"]]
    tensors: dict[str, dict[str, torch.Tensor]] = {node.output: {} for node in nodes}
    for key, array in arrays.items():
        index, name = key.split(".")
        tensors[nodes[int(index)].output][name] = torch.from_numpy(array)
    return QuantizedGraph(Graph(description["inputs"], description["outputs"], values, nodes, {}), tensors)


def _without_dropouts(value: Value) -> dict[str, Any]:
    """The fields of a value; a model in integers is not trained."""
    entry = asdict(value)
    del entry["dropouts"]
    return entry


def _value(entry: dict[str, Any]) -> Value:
    return Value(
        **{**entry, "shape": tuple(entry["shape"]), "quantization": Quantization(**entry["quantization"])}
    )
