"""The fixed-point arithmetic in torch, against nano-core's definition in Python's own integers."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_nano._native import NanoError, quantize_multiplier, quantize_wide_multiplier
from torch_nano.arithmetic.clamp import integer_clamp
from torch_nano.arithmetic.fixed_point import (
    accumulation_dtype,
    apply_multipliers,
    requantize,
    requantize_channels,
    requantize_wide,
)
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.errors import QuantizationError
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import run_native
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.softmax import Softmax
from torch_nano.ops.table import Table

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def literal(value: int, mantissa: int, shift: int) -> int:
    """TFLM's double rounding, step by step."""
    widened = min(max(value << max(shift, 0), INT32_MIN), INT32_MAX)
    high = min((widened * mantissa + 2**30) >> 31, INT32_MAX)
    exponent = max(-shift, 0)
    mask = (1 << exponent) - 1
    remainder, threshold = high & mask, (mask >> 1) + (high < 0)
    return (high >> exponent) + (remainder > threshold)


def multipliers(rng: np.random.Generator, count: int, largest_right_shift: int) -> list[tuple[int, int]]:
    mantissas = rng.integers(2**30, 2**31, count)
    mantissas[:: count // 4] = 2**30
    shifts = rng.integers(-largest_right_shift, 31, count)
    return [(int(mantissa), int(shift)) for mantissa, shift in zip(mantissas, shifts, strict=True)]


def accumulators(rng: np.random.Generator, shape: tuple[int, int], found: list[tuple[int, int]]) -> Tensor:
    """Half of them any int32, half of them near the border of two int8 outputs."""
    anything = rng.integers(INT32_MIN, INT32_MAX + 1, shape) >> rng.integers(0, 31, shape)
    real = np.array([mantissa * 2.0 ** (shift - 31) for mantissa, shift in found])
    borders = np.round((rng.integers(-130, 130, shape) + 0.5) / real) + rng.integers(-1, 2, shape)
    mixed = np.where(rng.random(shape) < 0.5, anything, np.clip(borders, INT32_MIN, INT32_MAX))
    return torch.from_numpy(mixed.astype(np.int64))


@pytest.mark.parametrize("largest_right_shift", [13, 31], ids=["float64", "int64"])
def test_requantize_is_tflms_double_rounding(largest_right_shift: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = multipliers(rng, 200, largest_right_shift)
        values = accumulators(rng, (300, 200), found)
        zero_point = int(rng.integers(-128, 128))
        for accumulator in (values, values.to(torch.float64)):
            y = requantize(accumulator, found, zero_point, (-100, 120))
            for row, outputs in zip(values.tolist(), y.tolist(), strict=True):
                expected = [
                    min(max(literal(value, *multiplier) + zero_point, -100), 120)
                    for value, multiplier in zip(row, found, strict=True)
                ]
                assert outputs == expected, f"seed {seed}"


def test_float64_would_fail_beyond_its_bound() -> None:
    value, multiplier = 9437123, (1495045909, -15)
    u = value * multiplier[0] * 2.0 ** (multiplier[1] - 31)
    assert (np.floor(u + 2.0**-16 + 0.5), literal(value, *multiplier)) == (201, 200)
    assert requantize(torch.tensor([value]), [multiplier], -100, (-128, 127)).item() == 100


def test_multipliers_are_applied_as_in_nano_core() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = multipliers(rng, 200, 31)
        values = accumulators(rng, (50, 200), found)
        expected = [[literal(v, *m) for v, m in zip(row, found, strict=True)] for row in values.tolist()]
        assert apply_multipliers(values, found).tolist() == expected, f"seed {seed}"


def test_sums_of_int16_layers_are_rounded_once_by_a_multiplier_of_15_bits() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reals = (2.0 ** rng.uniform(-32, 7, 30)).tolist()
        found = [quantize_wide_multiplier(real) for real in reals]
        for real, (mantissa, shift) in zip(reals, found, strict=True):
            q31, left = quantize_multiplier(real)
            assert (mantissa, shift) == (min(q31 + 2**15 >> 16, 2**15 - 1), 15 - left), f"seed {seed}: {real}"
        sums = rng.integers(-(2**46) + 1, 2**46, (50, 30)) >> rng.integers(0, 46, (50, 30))
        # Halves: of a power of two as a multiplier.
        found[0], sums[:, 0] = (2**14, 20), rng.integers(-(2**10), 2**10, 50) * 2**5
        expected = [
            [(value * m + 2 ** (shift - 1)) >> shift for value, (m, shift) in zip(row, found, strict=True)]
            for row in sums.tolist()
        ]
        assert requantize_wide(torch.from_numpy(sums), found).tolist() == expected, f"seed {seed}"


def test_large_sums_in_float64_are_requantized_exactly() -> None:
    sums = torch.tensor([[2.0**45 + 1.0, -(2.0**45) + 1.0]], dtype=torch.float64)
    y = requantize_channels(sums, [2.0**-31], 0, (-32768, 32767), torch.int16, wide=True)
    assert y.tolist() == [[16384, -16384]]
    with pytest.raises(NanoError, match=r"the multiplier 128 of an int16 layer is not in \[0, 2\^7\)"):
        requantize_channels(sums, [128.0], 0, (-32768, 32767), torch.int16, wide=True)


def test_a_patch_at_the_bound_is_exact() -> None:
    """An adversarial layer: the largest sums that int8 can make, odd, where float32 steps by 2."""
    inputs = 2400
    weight = torch.full((1, inputs, 1, 1), 127.0)
    weight[0, 0] = 126
    operator = Conv2d(kernel=(1, 1))
    of_x = Quantization(1.0, -128)
    tensors = operator.layer_tensors(weight, torch.tensor([1.0]), torch.tensor([1.0]), of_x)
    assert accumulation_dtype(weight, torch.tensor([1]), of_x.levels) is torch.float64
    assert accumulation_dtype(weight[:, : inputs // 8], torch.tensor([1]), of_x.levels) is torch.float32
    x = torch.full((1, inputs, 1, 1), 127, dtype=torch.int8)
    exact = 255 * (127 * inputs - 1) + 1
    assert exact > 2**24 and exact % 2 == 0
    # A scale at which the output is 0 for this sum alone.
    output = Quantization(1.0, 0)
    sums = {}
    for bias in (-exact + 1, -exact + 2):
        tensors["bias"] = torch.tensor([bias], dtype=torch.int32)
        (y,) = Layer(
            operator,
            [x],
            tensors=tensors,
            input_quantizations=[Quantization(1.0, -128)],
            output_quantizations=[output],
        ).integer_run()
        sums[bias] = y.item()
    assert sums == {-exact + 1: 0, -exact + 2: 1}


def test_a_table_is_made_in_float32_as_tflm_makes_it() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        exponents = rng.uniform(-7, -3, 2)
        if seed % 2:
            # Powers of two, so that halves come up.
            exponents = np.array([exponents[0].round(), exponents[0].round() + 1])
        x, y = (Quantization(2.0**exponent, int(rng.integers(-128, 128))) for exponent in exponents.tolist())
        layer = Layer(Table("elu"), input_quantizations=[x], output_quantizations=[y])
        table = layer.quantize()["table"]
        for q in range(-128, 128):
            real = np.float32(x.scale) * np.float32(q - x.zero_point)
            value = real if real >= 0 else np.float32(torch.tensor([real]).expm1().item())
            steps = float(value * (np.float32(1) / np.float32(y.scale)))
            rounded = int(np.copysign(np.floor(abs(steps) + 0.5), steps))
            assert table[q + 128] == min(max(rounded + y.zero_point, -128), 127), f"seed {seed}, input {q}"


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "expected"),
    [
        (None, None, 7, (-128, 127)),
        (-1.25, 1.25, 0, (-3, 3)),
        (-1.2, 1.2, 7, (5, 9)),
        (-1e9, 1e9, 7, (-128, 127)),
        (0.0, None, 7, (7, 127)),
    ],
)
def test_a_clamp_rounds_halves_away_from_zero(
    low: float | None, high: float | None, zero_point: int, expected: tuple[int, int]
) -> None:
    assert integer_clamp(low, high, Quantization(0.5, zero_point)) == expected


def test_softmax_of_hundreds_of_equal_channels_is_zero_as_in_nano_core() -> None:
    for channels in (511, 512, 513, 1000, 2048):
        x = torch.zeros(1, channels, dtype=torch.int8)
        layer = Layer(
            Softmax(),
            [x],
            input_quantizations=[Quantization(0.1, 0)],
            output_quantizations=[Quantization(1 / 256, -128)],
        )
        (y,), (native,) = layer.integer_run(), run_native(layer, [(channels,)])
        assert torch.equal(y, native)


def test_a_function_without_a_value_is_refused() -> None:
    with pytest.raises(QuantizationError, match=r"^log is not a number at -12\.8"):
        quantizations = [Quantization(0.1, 0)]
        Layer(Table("log"), input_quantizations=quantizations, output_quantizations=quantizations).quantize()


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(0.0, 0), (-1.0, 0), (1e-50, 0), (float("nan"), 0), (1.0, 128)]
)
def test_an_invalid_quantization_is_refused(scale: float, zero_point: int) -> None:
    with pytest.raises(QuantizationError, match="the scale must be a positive finite float32"):
        Quantization(scale, zero_point)


def test_a_multiplier_out_of_range_is_nano_cores_error() -> None:
    with pytest.raises(NanoError, match="not in"):
        quantize_multiplier(2.0**30)
