"""nano-core's fixed-point arithmetic in torch, bit for bit, on any torch device with int64 and float64.

``nano-core/src/fixed_point.rs`` has the definitions and makes the multipliers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torch_nano import _native

#: A Q31 mantissa and a power of two: ``mantissa * 2^(shift - 31)``.
Multiplier = tuple[int, int]

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
#: Up to this right shift float64 is exact; see :func:`requantize`.
_LARGEST_FLOAT64_RIGHT_SHIFT = 13
#: Up to this magnitude of the output, too: int8, and int8 without its zero point.
_LARGEST_FLOAT64_OUTPUT = 255
#: float32 holds every integer up to here.
_FLOAT32_INTEGERS = 2**24


def doubling_high_multiply(a: Tensor, b: Tensor | int) -> Tensor:
    """``2 * a * b / 2^32`` of int64 tensors that hold int32 numbers, rounded half up, saturated.

    >>> doubling_high_multiply(torch.tensor([1 << 30, -3]), 1 << 30)
    tensor([536870912,        -1])
    """
    return ((a * b + (1 << 30)) >> 31).clamp(max=_INT32_MAX)


def rounding_divide_by_power_of_two(value: Tensor, exponent: Tensor | int) -> Tensor:
    """``value / 2^exponent`` of an int64 tensor, rounded half away from zero.

    >>> rounding_divide_by_power_of_two(torch.tensor([6, -6, 5, -5]), 2)
    tensor([ 2, -2,  1, -1])
    """
    one = torch.ones((), dtype=torch.int64, device=value.device)
    mask = (one << exponent) - 1
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0))


def shift_left_saturating(value: Tensor, shift: Tensor | int) -> Tensor:
    """``value * 2^shift`` of an int64 tensor that holds int32 numbers, saturated to int32; shift 0 to 30.

    >>> shift_left_saturating(torch.tensor([3, -(2**30)]), 2)
    tensor([         12, -2147483648])
    """
    return (value << shift).clamp(_INT32_MIN, _INT32_MAX)


def apply_multipliers(value: Tensor, multipliers: Sequence[Multiplier]) -> Tensor:
    """int32 numbers in an int64 tensor times one multiplier, or one per channel (dimension 1), rounded twice.

    >>> apply_multipliers(torch.tensor([4, 5, -5]), [(1 << 30, -1)])
    tensor([ 1,  2, -1])
    """
    mantissa = _per_channel([mantissa for mantissa, _ in multipliers], value)
    left = _per_channel([max(shift, 0) for _, shift in multipliers], value)
    right = _per_channel([max(-shift, 0) for _, shift in multipliers], value)
    product = doubling_high_multiply(shift_left_saturating(value, left), mantissa)
    return rounding_divide_by_power_of_two(product, right)


def requantize(
    accumulator: Tensor,
    multipliers: Sequence[Multiplier],
    zero_point: int,
    clamp: tuple[int, int],
    dtype: torch.dtype = torch.int8,
) -> Tensor:
    """Requantizes accumulators: times a multiplier, rounded twice, plus the zero point, clamped.

    The accumulators are integers of any dtype; one multiplier for all, or one per channel (dimension 1).

    Both roundings are one floor in float64: with ``u`` the exact product and ``d = 2^-(e+1)`` for a right
    shift of e >= 1 (else 0), ``floor(u + copysign(d, u) + 1/2)``. For e <= 13 and |u| <= 257 every term is a
    multiple of ``2^-(31+e)`` with at most 53 bits, so float64 is exact; beyond 257 the result is clamped
    either way. Larger shifts, and clamps beyond 255, are computed in int64.

    >>> requantize(torch.tensor([4.0, 5.0, -5.0, 4000.0]), [(1 << 30, -1)], 3, (-128, 127))
    tensor([  4,   5,   2, 127], dtype=torch.int8)
    """
    right = [max(-shift, 0) for _, shift in multipliers]
    if max(right) > _LARGEST_FLOAT64_RIGHT_SHIFT or max(map(abs, clamp)) > _LARGEST_FLOAT64_OUTPUT:
        scaled = apply_multipliers(accumulator.to(torch.int64), multipliers)
    else:
        reals = [mantissa * 2.0 ** (shift - 31) for mantissa, shift in multipliers]
        factor = _per_channel(reals, accumulator)
        nudge = _per_channel([2.0 ** -(e + 1) if e else 0.0 for e in right], accumulator)
        scaled = accumulator.to(torch.float64) * factor
        scaled = scaled.add_(torch.copysign(nudge, scaled)).add_(0.5).floor_()
    return scaled.add_(zero_point).clamp_(*clamp).to(dtype)


def requantize_wide(accumulator: Tensor, multipliers: Sequence[Multiplier]) -> Tensor:
    """Requantizes accumulators of int16 layers, below 2^46 in magnitude, in int64: rounded once, half up.

    Args:
        multipliers: of ``_native.quantize_wide_multiplier``, a Q15 mantissa and a right shift, one for all or
            one per channel (dimension 1).

    >>> requantize_wide(torch.tensor([4, 5, -5]), [(1 << 14, 16)])
    tensor([ 1,  1, -1])
    """
    mantissa = _per_channel([mantissa for mantissa, _ in multipliers], accumulator)
    shift = _per_channel([shift for _, shift in multipliers], accumulator)
    half = torch.ones_like(shift) << (shift - 1)
    return (accumulator.to(torch.int64) * mantissa + half) >> shift


def requantize_channels(
    accumulator: Tensor,
    reals: Sequence[float],
    zero_point: int,
    clamp: tuple[int, int],
    dtype: torch.dtype,
    *,
    wide: bool,
) -> Tensor:
    """Requantizes the accumulators of a layer with weights: times a real multiplier, one for all or one per
    channel (dimension 1), plus the zero point, clamped.

    Args:
        accumulator: integers of any dtype; those in float64 may be off by a small fraction.
        wide: whether the layer is of int16.

    >>> requantize_channels(torch.tensor([4.0, 5.0]), [0.25], 3, (-128, 127), torch.int8, wide=False)
    tensor([4, 5], dtype=torch.int8)
    """
    if accumulator.dtype is torch.float64:
        accumulator = accumulator.round()
    if wide:
        scaled = requantize_wide(accumulator, [_native.quantize_wide_multiplier(real) for real in reals])
        return scaled.add_(zero_point).clamp_(*clamp).to(dtype)
    multipliers = [_native.quantize_multiplier(real) for real in reals]
    return requantize(accumulator, multipliers, zero_point, clamp, dtype)


def lookup(table: Tensor, x: Tensor) -> Tensor:
    """Looks int8 numbers up in a table of 256 entries: ``table[x + 128]``.

    >>> lookup(torch.arange(256), torch.tensor([-128, 0, 127], dtype=torch.int8))
    tensor([  0, 128, 255])
    """
    return table.to(x.device)[x.to(torch.int64) + 128]


def round_half_away(real: Tensor) -> Tensor:
    """Rounds to integers, halves away from zero; float64.

    >>> round_half_away(torch.tensor([0.5, -0.5, 0.49999997]))
    tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    real = real.to(torch.float64)
    return torch.copysign((real.abs() + 0.5).floor(), real)


def accumulation_dtype(weight: Tensor, bias: Tensor, levels: tuple[int, int]) -> torch.dtype:
    """The float dtype whose accumulator ``bias + sum x * weight`` is exact for every x of these ``levels``.

    Exact in any order of the sum. ``weight`` has the output channels first; ``levels`` are the smallest and
    the largest number of an input without its zero point. float32 is exact below 2^24; it is used on the CPU
    only, as convolutions elsewhere may use TF32 or Winograd's transform. float64 is exact below 2^53, which
    no layer that nano-core accepts reaches.
    """
    if not is_native(weight):
        return torch.float64
    largest = _native.largest_partial_sum(
        weight.to(torch.int8).reshape(-1).numpy(), bias.to(torch.int64).numpy(), *levels
    )
    return torch.float32 if largest < _FLOAT32_INTEGERS else torch.float64


def is_native(tensor: Tensor) -> bool:
    """Whether native code can read a tensor: on the CPU. Elsewhere training is plain torch."""
    return tensor.device.type == "cpu"


@contextmanager
def exact_convolution(device: torch.device) -> Iterator[None]:
    """Keeps torch from computing with reduced precision: no autocast, no Winograd transform of NNPACK, no
    bfloat16 of oneDNN.
    """
    backend: Any = torch.backends.mkldnn
    onednn = (backend.conv, backend.matmul)
    precisions = [setting.fp32_precision for setting in onednn]
    nnpack = torch.backends.nnpack.flags(enabled=False)
    with torch.no_grad(), torch.autocast(device.type, enabled=False), nnpack:
        try:
            for setting in onednn:
                setting.fp32_precision = "ieee"
            yield
        finally:
            for setting, precision in zip(onednn, precisions, strict=True):
                setting.fp32_precision = precision


def _per_channel(numbers: Sequence[int] | Sequence[float], like: Tensor) -> Tensor:
    """One number, or one per channel, shaped to broadcast against [N, channels, ...]."""
    dtype = torch.float64 if isinstance(numbers[0], float) else torch.int64
    tensor = torch.tensor(numbers, dtype=dtype, device=like.device)
    return tensor if len(numbers) == 1 else tensor.reshape(-1, *[1] * (like.dim() - 2))
