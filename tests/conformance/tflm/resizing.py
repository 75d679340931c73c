"""Interpolation."""

from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Quantization, input_tensor, numbers_tensor, output_tensor, run
from .options import Pair


def resize_bilinear(
    x: Int8, quantization: Quantization, size: Pair, *, align_corners: bool, half_pixel_centers: bool
) -> Int8:
    """RESIZE_BILINEAR of (N, H, W, C) to another height and width of at most 1024.

    Pixels are at their upper left corners without `half_pixel_centers`, which exclude `align_corners`.
    """
    if align_corners and half_pixel_centers:
        raise ValueError("TFLM aborts: align_corners excludes half_pixel_centers")
    if max(size) > 1024:
        raise ValueError(f"TFLM reads beyond the input: size {size} is above 1024")
    options = schema.ResizeBilinearOptionsT(alignCorners=align_corners, halfPixelCenters=half_pixel_centers)
    inputs = [input_tensor(x, quantization), numbers_tensor(size)]
    output = output_tensor((x.shape[0], *size, x.shape[3]), quantization)
    return run("RESIZE_BILINEAR", options, inputs, output)
