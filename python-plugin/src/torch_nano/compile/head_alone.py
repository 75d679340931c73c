"""A head without its model, to be tried on features."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _native
from ..arithmetic.quantization import Quantization


def head_alone(description: dict[str, Any], features: int, quantization: Quantization) -> _native.Head:
    """The head of an image whose input is its features.

    Args:
        description: for nano-core's writer.
        features: their number.
        quantization: of the features.

    Raises:
        HeadError: nano-core refuses the description.
    """
    value = {
        "dtype": "int8",
        "shape": (1, 1, features),
        "scale": quantization.scale,
        "zero_point": quantization.zero_point,
        "state": False,
    }
    identity = {
        "operator": "table",
        "inputs": [0],
        "outputs": [value],
        "attributes": {},
        "tensors": {"table": np.arange(-128, 128, dtype=np.int8)},
    }
    image = _native.write_image(
        {
            "name": "head",
            "labels": [],
            "inputs": [{"name": "features", "value": value, "channels": None}],
            "layers": [identity],
            "outputs": [{"name": "features", "id": 1}],
            "head": description,
            "weights_in_ram": 0,
            "optimize": "speed",
            "budget": (None, None),
            "flash_timing": None,
            "code": [],
        }
    )
    return _native.Head(_native.Model(image))
