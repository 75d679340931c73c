"""How windows move over an image."""

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8
from .options import Padding, Pair


def pad_window(x: Int8, padding: Padding, value: int) -> tuple[Int8, int]:
    """x (N, H, W, C), padded unless TFLM does it, and TFLite's number of the padding that is left."""
    if padding == "same":
        return x, schema.Padding.SAME
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)
    return padded, schema.Padding.VALID


def window_output(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: Pair, dilation: Pair, mode: int
) -> tuple[int, int]:
    """The height and width of what a window makes of an image of `size`."""

    def along(axis: int) -> int:
        reach = 1 if mode == schema.Padding.SAME else (kernel[axis] - 1) * dilation[axis] + 1
        if reach > size[axis]:
            raise ValueError(
                f"kernel {kernel} with dilation {dilation} is larger than the padded input {size}"
            )
        return (size[axis] - reach) // stride[axis] + 1

    return along(0), along(1)
