"""Heads of random layers, twice: nano-core's, and their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
from images import Description
from reference.layers_head import Layer, LayersHead
from torch_nano import _native

RELU, RELU6, NONE = (0.0, None), (0.0, 6.0), (None, None)


def image(layers: list[Layer], *, scale: float, zero_point: int, lr: float, **settings: Any) -> bytes:
    """A head of layers whose features are the model's input."""
    net = Description()
    shape = (1, 1, layers[0].positions * layers[0].weight.shape[1])
    x = net.input(shape, scale, zero_point)
    table = np.arange(-128, 128, dtype=np.int8)
    output = net.layer("table", [x], net.value(shape, scale, zero_point), {}, {"table": table})
    described = [
        {
            "positions": layer.positions,
            "weights": layer.weight,
            "biases": layer.bias,
            "clamp_low": layer.clamp[0],
            "clamp_high": layer.clamp[1],
            "range": layer.range,
        }
        for layer in layers
    ]
    net.entries["head"] = {
        "trainer": "layers",
        "layers": described,
        "learning_rate": lr,
        "loss": "cross_entropy",
        "halve_every": 0,
        "class_weights": [],
        "balance": False,
        "frozen": [],
        "guard": 0,
        "rejection": None,
        **settings,
    }
    return net.image(output)


def twins(
    layers: list[Layer], scale: float, zero_point: int, lr: float, **settings: Any
) -> tuple[_native.Head, LayersHead]:
    """The same head twice."""
    scale = float(np.float32(scale))
    native = _native.Head(image(layers, scale=scale, zero_point=zero_point, lr=lr, **settings))
    return native, LayersHead(layers, scale=scale, zero_point=zero_point, lr=lr, **settings)


def random_layers(
    rng: np.random.Generator, scale: float, spread: float, classes: int | None = None
) -> list[Layer]:
    """Two or three layers, at up to four positions, with ranges of the outputs that may be exceeded."""
    count = int(rng.integers(2, 4))
    # Positions of a layer divide what the layer before has.
    positions = [*sorted(rng.choice([1, 2, 4], count - 1).tolist(), reverse=True), 1]
    inputs, size, layers = int(rng.integers(1, 20)), 255 * scale, []
    for index in range(count):
        outputs = classes if classes and index + 1 == count else int(rng.integers(1, 12))
        weight = rng.normal(0, spread / inputs**0.5, (outputs, inputs)).astype(np.float32)
        bias = rng.normal(0, spread, outputs).astype(np.float32)
        size *= spread
        clamp = [RELU, RELU6, NONE][int(rng.integers(3))]
        seen = float(np.float32(size * rng.uniform(0.1, 1.0)))
        layers.append(Layer(weight, bias, positions[index], clamp, (-seen if clamp == NONE else 0.0, seen)))
        if index + 1 < count:
            inputs = outputs * positions[index] // positions[index + 1]
    layers[-1].clamp = NONE
    return layers


def largest_rate(layers: list[Layer], scale: float, zero_point: int, loss: str = "cross_entropy") -> float:
    """The largest power of two that all layers take."""
    for exponent in range(40, -60, -1):
        try:
            twins(layers, scale, zero_point, 2.0**exponent, loss=loss)
        except ValueError:
            continue
        return 2.0**exponent
    raise AssertionError("no learning rate fits")
