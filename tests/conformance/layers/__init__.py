"""Seeded random layers, one class per operator family, each with the output that TFLM gives for it.

Any layer can be made again from its family, seed and index: its repr says how.

>>> layer("fully_connected", seed=0, index=1).origin
layer("fully_connected", seed=0, index=1)
"""

import zlib
from collections.abc import Iterator

import numpy as np

from .base import Layer, Origin
from .convolution import Conv2d, Conv2dInt16, ConvTranspose2d, DepthwiseConv2d, DepthwiseConv2dInt16
from .elementwise import Prelu, Requantize, RequantizeDtypes, Unary
from .linear import FullyConnected, FullyConnectedInt16, Matmul
from .movement import Concat, ConcatInt16, Move, MoveInt16
from .pairwise import Add, AddInt16, Mul, MulInt16, Pairwise, Sub, SubInt16
from .pooling import AveragePool, AveragePoolInt16, MaxPool, MaxPoolInt16
from .recurrent import Lstm
from .resizing import ResizeBilinear
from .selection import Argmax, Embedding
from .softmax import LogSoftmax, MaskedSoftmax, Softmax

__all__ = [
    "FAMILIES",
    "Add",
    "AddInt16",
    "Argmax",
    "AveragePool",
    "AveragePoolInt16",
    "Concat",
    "ConcatInt16",
    "Conv2d",
    "Conv2dInt16",
    "ConvTranspose2d",
    "DepthwiseConv2d",
    "DepthwiseConv2dInt16",
    "Embedding",
    "FullyConnected",
    "FullyConnectedInt16",
    "Layer",
    "LogSoftmax",
    "Lstm",
    "MaskedSoftmax",
    "Matmul",
    "MaxPool",
    "MaxPoolInt16",
    "Move",
    "MoveInt16",
    "Mul",
    "MulInt16",
    "Origin",
    "Pairwise",
    "Prelu",
    "Requantize",
    "RequantizeDtypes",
    "ResizeBilinear",
    "Softmax",
    "Sub",
    "SubInt16",
    "Unary",
    "layer",
    "layers",
]


FAMILIES: dict[str, type[Layer]] = {
    "conv2d": Conv2d,
    "conv2d_int16": Conv2dInt16,
    "conv_transpose2d": ConvTranspose2d,
    "depthwise_conv2d": DepthwiseConv2d,
    "depthwise_conv2d_int16": DepthwiseConv2dInt16,
    "fully_connected": FullyConnected,
    "fully_connected_int16": FullyConnectedInt16,
    "add": Add,
    "argmax": Argmax,
    "embedding": Embedding,
    "mul": Mul,
    "sub": Sub,
    "add_int16": AddInt16,
    "mul_int16": MulInt16,
    "sub_int16": SubInt16,
    "concat": Concat,
    "lstm": Lstm,
    "matmul": Matmul,
    "max_pool": MaxPool,
    "move": Move,
    "average_pool": AveragePool,
    "max_pool_int16": MaxPoolInt16,
    "average_pool_int16": AveragePoolInt16,
    "prelu": Prelu,
    "requantize": Requantize,
    "requantize_dtypes": RequantizeDtypes,
    "resize_bilinear": ResizeBilinear,
    "move_int16": MoveInt16,
    "concat_int16": ConcatInt16,
    "softmax": Softmax,
    "masked_softmax": MaskedSoftmax,
    "log_softmax": LogSoftmax,
    "unary": Unary,
}


def layer(family: str, seed: int, index: int) -> Layer:
    """The layer number `index` of this seed."""
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed, index])
    return FAMILIES[family].random(Origin(family, seed, index), rng)


def layers(family: str, count: int, seed: int = 0) -> Iterator[Layer]:
    """The first `count` layers of this seed."""
    return (layer(family, seed, index) for index in range(count))
