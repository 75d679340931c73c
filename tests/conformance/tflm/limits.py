"""Where TFLM overflows."""

import math

import numpy as np
import numpy.typing as npt

from ..model import Float32, Int8, Int32, Int64, Quantization


def accumulator_bound(weights: Int8, bias: Int32 | Int64, dtype: str = "int8") -> npt.NDArray[np.int64]:
    """Largest |accumulator| per output channel for any input of a dtype and any zero point that it has.

    |bias| + 255 * sum|w| for int8, |bias| + 2^15 * sum|w| for int16. `weights` has the output channels first.
    Shape of the result: (out,).
    """
    magnitude = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    largest = 255 if dtype == "int8" else 2**15
    bound: npt.NDArray[np.int64] = np.abs(bias.astype(np.int64)) + largest * magnitude
    return bound


def largest_bound(multiplier: float, dtype: str = "int8") -> int:
    """The largest |accumulator| that TFLM requantizes by this real multiplier without overflow.

    For an int8 layer with a multiplier of 1 or more TFLM shifts the accumulator left first; that shift, and
    the addition of the zero point, wrap silently (signed overflow). 256 leaves room for the zero point. That
    of an int16 layer must stay below 2^47 (torch-nano allows 2^46), and below 2^31 once it is multiplied, by
    a multiplier that is rounded by up to 2^-15 of it.
    """
    if dtype == "int8":
        return 2**31 - 256 >> max(0, math.frexp(multiplier)[1])
    return min(2**46 - 1, int((2**31 - 2**17) / max(multiplier, 2.0**-32)))


def check_requantization(
    weights: Int8,
    bias: Int32 | Int64,
    x_quantization: Quantization,
    scales: Float32,
    y_quantization: Quantization,
) -> None:
    """Raises a `ValueError` where TFLM would overflow for some input; `weights` as in `accumulator_bound`."""
    if bias.shape != (len(weights),):
        raise ValueError(f"bias has shape {bias.shape}, expected ({len(weights)},)")
    dtype = x_quantization.dtype
    bounds = accumulator_bound(weights, bias, dtype)
    for bound, scale in zip(bounds.tolist(), np.broadcast_to(scales, bounds.shape).tolist(), strict=True):
        multiplier = x_quantization.scale * scale / y_quantization.scale
        if bound > largest_bound(multiplier, dtype) or (dtype == "int16" and multiplier >= 2**7):
            raise ValueError(f"TFLM overflows: |accumulator| up to {bound}, multiplier {multiplier}")
