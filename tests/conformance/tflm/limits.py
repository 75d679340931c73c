"""Where TFLM overflows."""

import math

import numpy as np
import numpy.typing as npt

from ..model import Float32, Int8, Int32, Quantization


def accumulator_bound(weights: Int8, bias: Int32) -> npt.NDArray[np.int64]:
    """Largest |accumulator| per output channel, |bias| + 255 * sum|w|, for any int8 input and zero point.

    `weights` has the output channels first. Shape of the result: (out,).
    """
    magnitude = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    bound: npt.NDArray[np.int64] = np.abs(bias.astype(np.int64)) + 255 * magnitude
    return bound


def largest_bound(multiplier: float) -> int:
    """The largest |accumulator| that TFLM requantizes by this real multiplier without overflow.

    For a multiplier of 1 or more TFLM shifts the accumulator left first; that shift, and the addition of
    the zero point, wrap silently (signed overflow). 256 leaves room for the zero point.
    """
    return 2**31 - 256 >> max(0, math.frexp(multiplier)[1])


def check_requantization(
    weights: Int8, bias: Int32, x_quantization: Quantization, scales: Float32, y_quantization: Quantization
) -> None:
    """Raises a `ValueError` where TFLM would overflow for some input; `weights` as in `accumulator_bound`."""
    if bias.shape != (len(weights),):
        raise ValueError(f"bias has shape {bias.shape}, expected ({len(weights)},)")
    bounds = accumulator_bound(weights, bias)
    for bound, scale in zip(bounds.tolist(), np.broadcast_to(scales, bounds.shape).tolist(), strict=True):
        multiplier = x_quantization.scale * scale / y_quantization.scale
        if bound > largest_bound(multiplier):
            raise ValueError(f"TFLM overflows: |accumulator| up to {bound}, multiplier {multiplier}")
