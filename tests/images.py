"""Small `.nano` images, described layer by layer to `_native.write_image`."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from torch_nano import _native, heads

Floats = npt.NDArray[np.float32]
CLAMP = {"clamp_min": -128, "clamp_max": 127}
SCALE, ZERO_POINT = float(np.float32(0.05)), -3


def window(
    kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0)
) -> dict[str, int]:
    """Attributes of a sliding window; the padding is that of both ends."""
    return {
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride_height": stride[0],
        "stride_width": stride[1],
        "dilation_height": 1,
        "dilation_width": 1,
        "padding_top": padding[0],
        "padding_bottom": padding[0],
        "padding_left": padding[1],
        "padding_right": padding[1],
        **CLAMP,
    }


class Description:
    """A model description under construction; `image()` writes it."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.entries: dict[str, Any] = {
            "name": "test",
            "labels": [],
            "inputs": [],
            "layers": [],
            "outputs": [],
            "head": None,
            "weights_in_ram": 0,
            "optimize": "speed",
            "budget": (None, None),
            "flash_timing": None,
            "code": [],
        }

    @staticmethod
    def value(
        shape: tuple[int, int, int], scale: float = SCALE, zero_point: int = ZERO_POINT
    ) -> dict[str, Any]:
        return {
            "dtype": "int8",
            "shape": shape,
            "scale": scale,
            "zero_point": zero_point,
            "state": False,
        }

    def input(self, shape: tuple[int, int, int], scale: float = SCALE, zero_point: int = ZERO_POINT) -> int:
        """Adds a graph input, before the first layer; returns its id."""
        assert not self.entries["layers"], "the ids of inputs are below those of the layers' outputs"
        index = len(self.entries["inputs"])
        value = self.value(shape, scale, zero_point)
        self.entries["inputs"].append({"name": f"input {index}", "value": value, "channels": None})
        return index

    def layer(
        self,
        operator: str,
        inputs: list[int],
        output: dict[str, Any],
        attributes: dict[str, int] | None = None,
        tensors: dict[str, npt.NDArray[Any]] | None = None,
    ) -> int:
        """Adds a layer; returns the id of its output."""
        self.entries["layers"].append(
            {
                "operator": operator,
                "inputs": inputs,
                "outputs": [output],
                "attributes": attributes or {},
                "tensors": tensors or {},
            }
        )
        return len(self.entries["inputs"]) + len(self.entries["layers"]) - 1

    def weighted(
        self,
        operator: str,
        input: int,
        shape: tuple[int, int, int],
        attributes: dict[str, int],
        per_channel: int,
    ) -> int:
        """A layer of random weights that keeps the scale of the values."""
        channels = shape[2]
        tensors = {
            "weights": self.rng.integers(-127, 128, (channels, per_channel), np.int8),
            "bias": self.rng.integers(-3000, 3000, channels, np.int32),
            "weight_scales": self.rng.uniform(0.005, 0.015, channels).astype(np.float32) / per_channel**0.5,
        }
        return self.layer(operator, [input], self.value(shape), attributes, tensors)

    def head(self, weights: Floats, biases: Floats, settings: heads.HeadSettings) -> None:
        self.entries["head"] = settings.description(weights, biases)

    def image(self, *outputs: int) -> bytes:
        entries = [{"name": f"output {index}", "id": id} for index, id in enumerate(outputs)]
        return _native.write_image({**self.entries, "outputs": entries})


def one_layer() -> bytes:
    """A fully connected layer, 20 to 7."""
    net = Description()
    return net.image(net.weighted("fully_connected", net.input((1, 1, 20)), (1, 1, 7), CLAMP, 20))


def features(net: Description) -> int:
    """A small 2-D network, 9 x 8 x 3 to 10 features."""
    x = net.input((9, 8, 3))
    x = net.weighted("conv2d", x, (9, 8, 6), {**window((3, 3), padding=(1, 1)), "groups": 1}, 27)
    shortcut = x
    x = net.weighted("depthwise_conv2d", x, (9, 8, 6), window((3, 3), padding=(1, 1)), 9)
    x = net.layer("add", [x, shortcut], net.value((9, 8, 6)), CLAMP)
    x = net.layer("max_pool2d", [x], net.value((4, 4, 6)), window((2, 2), stride=(2, 2)))
    x = net.weighted("conv2d", x, (4, 4, 10), {**window((1, 1)), "groups": 1}, 6)
    return net.layer("average_pool2d", [x], net.value((1, 1, 10)), {**window((4, 4)), "count_include_pad": 0})


def many_layers() -> bytes:
    """`features`, a fully connected layer and softmax."""
    net = Description(1)
    logits = net.weighted("fully_connected", features(net), (1, 1, 5), CLAMP, 10)
    return net.image(net.layer("softmax", [logits], net.value((1, 1, 5), 1 / 256, -128)))


def with_head(
    classes: int = 4, learning_rate: float = 0.05, settings: heads.HeadSettings | None = None
) -> bytes:
    """`features` and a head."""
    net = Description(2)
    output = features(net)
    weights = net.rng.normal(0, 0.3, (classes, 10)).astype(np.float32)
    net.head(weights, np.zeros(classes, np.float32), settings or heads.SGD(learning_rate))
    return net.image(output)


def head_alone(
    weights: Floats,
    biases: Floats,
    *,
    scale: float,
    zero_point: int,
    learning_rate: float = 0.05,
    settings: heads.HeadSettings | None = None,
) -> bytes:
    """A head whose features are the model's input."""
    net = Description()
    shape = (1, 1, weights.shape[1])
    x = net.input(shape, scale, zero_point)
    table = np.arange(-128, 128, dtype=np.int8)
    output = net.layer("table", [x], net.value(shape, scale, zero_point), {}, {"table": table})
    net.head(weights, biases, settings or heads.SGD(learning_rate))
    return net.image(output)


def seal(image: bytearray) -> int:
    """Corrects the checksum of a changed image; returns it, the image's id."""
    id = _xxh32(bytes(image[12:]))
    struct.pack_into("<I", image, 8, id)
    return id


def _xxh32(data: bytes) -> int:
    """XXH32 with seed 0, as its specification defines it."""
    primes = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    mask = 2**32 - 1

    def rotate(value: int, bits: int) -> int:
        value &= mask
        return (value << bits | value >> (32 - bits)) & mask

    lanes, place = [primes[0] + primes[1], primes[1], 0, -primes[0]], 0
    while place + 16 <= len(data):
        words = struct.unpack_from("<4I", data, place)
        lanes = [
            rotate(lane + word * primes[1], 13) * primes[0] for lane, word in zip(lanes, words, strict=True)
        ]
        place += 16
    turns = zip(lanes, (1, 7, 12, 18), strict=True)
    result = sum(rotate(lane, bits) for lane, bits in turns) if place else primes[4]
    result += len(data)
    while place + 4 <= len(data):
        (word,) = struct.unpack_from("<I", data, place)
        result = rotate(result + word * primes[2], 17) * primes[3]
        place += 4
    for byte in data[place:]:
        result = rotate(result + byte * primes[4], 11) * primes[0]
    for shift, prime in ((15, primes[1]), (13, primes[2]), (16, 1)):
        result &= mask
        result = (result ^ result >> shift) * prime
    return result & mask
