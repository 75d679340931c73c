"""Heads of random layers, twice: nano-core's, and their definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from images import Description
from reference.layers_head import Layer, LayersHead, Shape, dense
from torch_nano import _native

RELU, RELU6, NONE = (0.0, None), (0.0, 6.0), (None, None)
DESCRIBED = ("operation", "other", "input", "output", "kernel", "stride", "padding", "learns")


def width_of(layers: list[Layer]) -> int:
    """The number of features."""
    return math.prod(layers[0].input)


def image(layers: list[Layer], *, scale: float, zero_point: int, lr: float, **settings: Any) -> bytes:
    """A head of layers whose features are the model's input."""
    net = Description()
    shape = (1, 1, width_of(layers))
    x = net.input(shape, scale, zero_point)
    table = np.arange(-128, 128, dtype=np.int8)
    output = net.layer("table", [x], net.value(shape, scale, zero_point), {}, {"table": table})
    described = [
        {
            **{name: getattr(layer, name) for name in DESCRIBED},
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
        "half_life": 0,
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
        layer = dense(weight, bias, positions[index])
        layer.clamp, layer.range = clamp, (-seen if clamp == NONE else 0.0, seen)
        layers.append(layer)
        if index + 1 < count:
            inputs = outputs * positions[index] // positions[index + 1]
    layers[-1].clamp = NONE
    return layers


def random_network(
    rng: np.random.Generator, scale: float, spread: float, classes: int | None = None
) -> list[Layer]:
    """Convolutions, depthwise ones, pools and residual sums over a small image, and a last layer."""
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    layers: list[Layer] = []
    size = 255 * scale
    has_sum = bool(rng.random() < 0.6)

    def add(operation: str, output: Shape, rows: int = 0, inputs: int = 1, **geometry: Any) -> None:
        nonlocal shape, size
        weight = rng.normal(0, spread / inputs**0.5, (rows, inputs)).astype(np.float32)
        bias = rng.normal(0, spread * size / 255, rows).astype(np.float32)
        size *= spread if rows else 1.0
        clamp = NONE if operation == "max_pool" else [RELU, RELU6, NONE][int(rng.integers(3))]
        seen = float(np.float32(size * rng.uniform(0.1, 1.0)))
        layer = Layer(weight, bias, operation, shape, output, **geometry)
        layer.clamp, layer.range = clamp, (-seen if clamp == NONE else 0.0, seen)
        # The first layer learns, the others may keep their weights.
        layer.learns = not layers or bool(rng.random() < 0.7)
        layers.append(layer)
        shape = output

    for index in range(int(rng.integers(1, 6))):
        kinds = ["convolution", "depthwise", "max_pool", "average_pool", "add"]
        kind = kinds[int(rng.integers(2 if index == 0 else 5))]
        # The scales of the terms of a sum differ by a power of two.
        if kind == "add" and not has_sum:
            continue
        kernel = (1, 1)
        if kind != "add":
            kernel = (int(rng.integers(1, shape[0] + 1)), int(rng.integers(1, shape[1] + 1)))
        if kind == "average_pool" and has_sum:
            kernel = (1 << int(np.log2(kernel[0])), 1 << int(np.log2(kernel[1])))
        padding, stride = (0, 0), (1, 1)
        if kind in ("convolution", "depthwise", "max_pool"):
            padding = (int(rng.integers(kernel[0])), int(rng.integers(kernel[1])))
        keeps = kind in ("convolution", "depthwise") and bool(rng.random() < 0.6)
        if keeps:
            # The same size, as in a residual block.
            kernel = (1 + 2 * int(rng.integers(2)), 1 + 2 * int(rng.integers(2)))
            padding = (kernel[0] // 2, kernel[1] // 2)
        elif kind != "add":
            stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        sides = [(shape[side] + padding[side] * 2 - kernel[side]) // stride[side] + 1 for side in (0, 1)]
        geometry: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": padding}
        taps = kernel[0] * kernel[1]
        if kind == "convolution":
            channels = shape[2] if keeps else int(rng.integers(1, 6))
            add(kind, (*sides, channels), channels, taps * shape[2], **geometry)
        elif kind == "add":
            shapes = [layers[0].input, *(layer.output for layer in layers)]
            others = [number for number, other in enumerate(shapes) if other == shape]
            add(kind, shape, other=int(rng.choice(others)))
        else:
            add(kind, (*sides, shape[2]), shape[2] if kind == "depthwise" else 0, taps, **geometry)
    inputs = math.prod(shape)
    outputs = classes or int(rng.integers(2, 8))
    last = dense(
        rng.normal(0, spread / inputs**0.5, (outputs, inputs)).astype(np.float32),
        rng.normal(0, spread, outputs).astype(np.float32),
    )
    return [*layers, last]


def rates(layers: list[Layer], scale: float, zero_point: int, loss: str = "cross_entropy") -> list[float]:
    """The powers of two that all layers take as learning rates, from the largest on."""
    found = []
    for exponent in range(40, -60, -1):
        try:
            twins(layers, scale, zero_point, 2.0**exponent, loss=loss)
        except ValueError:
            if found:
                break
            continue
        found.append(2.0**exponent)
    return found


def largest_rate(layers: list[Layer], scale: float, zero_point: int, loss: str = "cross_entropy") -> float:
    """The largest power of two that all layers take."""
    found = rates(layers, scale, zero_point, loss)
    assert found, "no learning rate fits"
    return found[0]
