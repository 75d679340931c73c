"""Values, layers and models as :func:`_native.write_image` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import QuantizationError
from ..ir.layer import Layer
from ..ir.quantization import Quantization
from ..ir.value import Shape
from .layout import device_shape

Entry = dict[str, Any]


def describe_value(shape: Shape, quantization: Quantization) -> Entry:
    """A value of a torch shape without batch.

    Raises:
        QuantizationError: an image cannot hold its dtype.
    """
    if quantization.dtype != "int8":
        raise QuantizationError(f"a value of an image is int8; this one is {quantization.dtype}")
    return {
        "shape": device_shape(shape),
        "scale": quantization.scale,
        "zero_point": quantization.zero_point,
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
        outputs: what it makes, as :func:`describe_value` has it.
        tensors: of :meth:`Layer.quantize`, by name.

    Raises:
        QuantizationError: an image cannot hold such a layer.
    """
    if len(outputs) != 1:
        raise QuantizationError(
            f"{layer.operator.name} makes {len(outputs)} values; a layer of an image makes one"
        )
    return {
        "operator": layer.operator.name,
        "inputs": list(inputs),
        "output": outputs[0],
        "attributes": layer.attributes(),
        "tensors": dict(tensors),
    }


def describe_model(
    inputs: Sequence[Entry],
    layers: Sequence[Entry],
    outputs: Sequence[int],
    *,
    name: str = "",
    labels: Sequence[str] = (),
    head: Entry | None = None,
) -> Entry:
    """A model; `outputs` are ids of values, `head` is what the settings of a trainable head describe."""
    return {
        "name": name,
        "labels": list(labels),
        "inputs": list(inputs),
        "layers": list(layers),
        "outputs": list(outputs),
        "head": head,
    }
