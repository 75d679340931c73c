"""Values, layers and models as :func:`_native.write_image` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _native
from ..arithmetic.layout import Shape, device_shape
from ..arithmetic.quantization import ChannelScales, Quantization
from .layer import Layer

Entry = dict[str, Any]

#: Whether each output of an operator is a state, which lives from run to run.
_STATES = {name: operator["states"] for name, operator in _native.operators().items()}


def describe_value(shape: Shape, quantization: Quantization) -> Entry:
    """A value of a torch shape without batch."""
    return {
        "dtype": quantization.dtype,
        "shape": device_shape(shape),
        "scale": quantization.scale,
        "zero_point": quantization.zero_point,
        "state": False,
    }


def describe_layer(
    layer: Layer,
    inputs: Sequence[int],
    outputs: Sequence[Entry],
    tensors: Mapping[str, npt.NDArray[np.generic]],
) -> Entry:
    """A layer.

    Args:
        inputs: ids of the values it reads: the model's inputs come first, then the outputs of each layer.
        outputs: its outputs, from :func:`describe_value`; nano-core knows which of them are states.
        tensors: of :meth:`Layer.quantize`, by name.
    """
    # One that nano-core does not know is refused when the image is written.
    states = _STATES.get(layer.operator.name, [])
    return {
        "operator": layer.operator.name,
        "inputs": list(inputs),
        "outputs": [
            {**output, "state": index < len(states) and states[index]} for index, output in enumerate(outputs)
        ],
        "attributes": layer.attributes(),
        "tensors": dict(tensors),
    }


def describe_model(
    inputs: Mapping[str, Entry],
    layers: Sequence[Entry],
    outputs: Mapping[str, int],
    *,
    name: str = "",
    labels: Sequence[str] = (),
    head: Entry | None = None,
    channels: Mapping[str, ChannelScales] | None = None,
    weights_in_ram: int = 0,
    optimization: Mapping[str, Any] | None = None,
) -> Entry:
    """A model.

    Args:
        inputs: the values, by name.
        outputs: ids of values, by name.
        head: the description from the settings of a trainable head.
        channels: scales per channel, by name of the input; an input without them has one scale.
        weights_in_ram: bytes of RAM for copies of layers' constants, at most.
        optimization: how kernels are chosen: "optimize", "budget", "flash_timing" and "code"; None: the
            fastest, without limits, where reading flash takes no time and code counts nothing.
    """
    return {
        "name": name,
        "labels": list(labels),
        "inputs": [
            {"name": name, "value": value, "channels": _channels((channels or {}).get(name))}
            for name, value in inputs.items()
        ],
        "layers": list(layers),
        "outputs": [{"name": name, "id": id} for name, id in outputs.items()],
        "head": head,
        "weights_in_ram": weights_in_ram,
        **(optimization or {"optimize": "speed", "budget": (None, None), "flash_timing": None, "code": []}),
    }


def _channels(scales: ChannelScales | None) -> Entry | None:
    if scales is None:
        return None
    return {"scale": scales.scale.numpy(), "offset": scales.offset.numpy()}
