"""The native passes of training against Python's integers and numpy."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch_nano import _native

INT32 = 2**31 - 1
#: float32 holds every integer up to here; so do the accumulators.
LARGEST = 2**24


def rounded_twice(accumulator: int, mantissa: int, shift: int) -> int:
    """TFLite's double rounding, in Python's integers: half up, then half away from zero."""
    value = max(-(2**31), min(accumulator << max(shift, 0), INT32))
    high = min((value * mantissa + (1 << 30)) >> 31, INT32)
    right = max(-shift, 0)
    if right == 0:
        return high
    half = 1 << (right - 1)
    return (high + half) >> right if high >= 0 else -((-high + half) >> right)


def requantized(accumulators: list[int], real: float, low: int, high: int) -> list[int]:
    array = np.array(accumulators, dtype=np.float32)
    _native.requantize_(array, np.array([real]), low, high)
    return [int(number) for number in array]


def test_requantization_is_the_double_rounding() -> None:
    for seed in range(300):
        generator = random.Random(seed)
        real = 2.0 ** generator.uniform(-30, 3) if seed % 3 else 2.0 ** generator.randint(-26, 3)
        # Numbers whose product is small, with ties among them, and any numbers.
        near = [round((k + 0.5) / real) + d for k in range(-130, 130, 13) for d in (-1, 0, 1)]
        anywhere = [generator.randint(-LARGEST, LARGEST) for _ in range(50)]
        accumulators = [n for n in near if abs(n) <= LARGEST] + anywhere + [0, 1, -1, LARGEST, -LARGEST]
        low, high = generator.choice([(-128, 127), (0, 255), (-255, 0), (-3, 200)])
        mantissa, shift = _native.quantize_multiplier(real)
        expected = [max(low, min(rounded_twice(n, mantissa, shift), high)) for n in accumulators]
        assert requantized(accumulators, real, low, high) == expected, f"seed {seed}"


def test_ties_and_large_shifts_round_as_by_hand() -> None:
    # At 1/2 there is only the first rounding: halves up. At 1/4, 5 goes to 2.5, 3, 1.5 and 2.
    assert requantized([5, -5, 6, -6], 0.5, -128, 127) == [3, -2, 3, -3]
    assert requantized([5, -5, 6, -6], 0.25, -128, 127) == [2, -1, 2, -2]
    # The counterexample of float64 at a shift of 15.
    mantissa, shift = 1495045909, -15
    real = mantissa * 2.0 ** (shift - 31)
    assert _native.quantize_multiplier(real) == (mantissa, shift)
    assert requantized([9437123], real, -(2**20), 2**20) == [rounded_twice(9437123, mantissa, shift)]
    assert requantized([LARGEST, -LARGEST], 2.0**-24, -128, 127) == [1, -1]
    assert requantized([LARGEST, -LARGEST], 2.0**-31, -128, 127) == [0, 0]


def test_every_channel_has_its_multiplier() -> None:
    generator = torch.Generator().manual_seed(0)
    # All to the right; more than a row of vectors; with a left shift, which is done literally.
    for reals in ([0.5, 0.01, 0.003, 0.9], [0.25] * 67 + [0.1] * 3, [0.5, 0.01, 0.003, 1.5]):
        sums = torch.randint(-5000, 5000, (7, len(reals)), generator=generator)
        array = sums.float().flatten().numpy()
        _native.requantize_(array, np.array(reals), -128, 127)
        for index, (row, channel) in enumerate(itertools.product(range(7), range(len(reals)))):
            pair = _native.quantize_multiplier(reals[channel])
            expected = rounded_twice(int(sums[row, channel]), *pair)
            assert array[index] == max(-128, min(expected, 127)), (row, channel, reals[channel])


@pytest.mark.parametrize(
    ("count", "reals", "message"),
    [
        (13, [0.5, 0.5], "13 accumulators are no multiple of 2 channels"),
        (12, [], "12 accumulators are no multiple of 0 channels"),
        (2, [0.5, float("nan")], r"the multiplier NaN is not in \[0, 2\^30\)"),
        (2, [-0.5, 1.0], r"the multiplier -0.5 is not in"),
    ],
)
def test_wrong_lengths_and_multipliers_are_refused(count: int, reals: list[float], message: str) -> None:
    array = np.ones(count, np.float32)
    with pytest.raises(_native.NanoError, match=message):
        _native.requantize_(array, np.array(reals, dtype=np.float64), -128, 127)
    assert (array == 1).all()


def test_lookups_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(-128, 128, 65536).astype(np.int8)
    single = generator.normal(size=256).astype(np.float32)
    every = np.arange(-128, 128)
    a, b = (part.flatten() for part in np.meshgrid(every, every))
    for zero_points in [(0, 0, 0), (-128, 127, 5), (127, -128, -128), (3, -7, 127)]:
        outputs = np.empty(65536, np.float32)
        first, second = (
            (part - zero_point).astype(np.float32)
            for part, zero_point in zip((a, b), zero_points, strict=False)
        )
        _native.look_up_pairs(first, second, outputs, pairs, zero_points)
        expected = pairs[256 * (a + 128) + b + 128].astype(np.float32) - zero_points[2]
        assert (outputs == expected).all(), zero_points
        _native.look_up(first, outputs, single, zero_points[0])
        assert (outputs == single[a + 128]).all(), zero_points


def test_lookups_of_wrong_lengths_are_refused() -> None:
    four, five = np.zeros(4, np.float32), np.zeros(5, np.float32)
    table, short = np.zeros(65536, np.int8), np.zeros(65535, np.int8)
    with pytest.raises(_native.NanoError, match="a table of 65535 entries, not 65536"):
        _native.look_up_pairs(four, four, four.copy(), short, (0, 0, 0))
    for arguments in ((five, four, four), (four, five, four), (four, four, five)):
        with pytest.raises(_native.NanoError, match=r"numbers for \d outputs"):
            _native.look_up_pairs(*(part.copy() for part in arguments), table, (0, 0, 0))
    with pytest.raises(_native.NanoError, match="a table of 255 entries, not 256"):
        _native.look_up(four, four.copy(), np.zeros(255, np.float32), 0)
    with pytest.raises(_native.NanoError, match="4 numbers for 5 outputs"):
        _native.look_up(four, five, np.zeros(256, np.float32), 0)


def quantized(
    weight: np.ndarray, bias: np.ndarray, input_scale: float, largest_bias: int
) -> tuple[np.ndarray, ...]:
    """Weights, biases and scales as the documentation of `quantize_channels` says, in numpy's float64."""
    steps = np.abs(weight).max(1).astype(np.float64) / 127
    steps[steps == 0] = steps.max() if steps.max() > 0 else 1.0
    steps = np.maximum(steps, np.abs(bias.astype(np.float64)) / (input_scale * largest_bias))
    scales = np.maximum(steps.astype(np.float32), np.finfo(np.float32).tiny)
    wide = scales.astype(np.float64)
    integers = np.clip(np.rint(weight.astype(np.float64) / wide[:, None]), -127, 127)
    return (
        integers.astype(np.int8),
        np.rint(bias.astype(np.float64) / (input_scale * wide)).astype(int),
        scales,
    )


def test_weights_and_biases_are_those_of_numpy() -> None:
    for seed in range(100):
        generator = np.random.default_rng(seed)
        shape = (int(generator.integers(1, 9)), int(generator.integers(1, 40)))
        size = (10.0 ** generator.uniform(-42, 30, (shape[0], 1))) if seed % 4 == 0 else 1.0
        with np.errstate(under="ignore"):
            weight = (generator.normal(size=shape) * size).astype(np.float32)
        if seed % 3 == 0:
            # Halves of steps: 127 is the largest, so a step is 1.
            weight = (generator.integers(-253, 254, shape) / 2).astype(np.float32)
            weight[:, 0] = 127
        weight[generator.random(shape[0]) < 0.2] = 0
        bias = (generator.normal(size=shape[0]) * 10.0 ** generator.uniform(-6, 6)).astype(np.float32)
        input_scale = float(np.float32(2.0 ** generator.uniform(-12, 2)))
        bits = 8 if seed % 4 else 16
        got = _native.quantize_channels(weight.reshape(-1), bias, input_scale, bits)
        expected = quantized(weight, bias, input_scale, 2 ** (22 + bits - 8))
        for part, reference in zip(got, expected, strict=True):
            assert (part.reshape(reference.shape) == reference).all(), f"seed {seed}"


def test_weights_must_be_a_multiple_of_the_channels() -> None:
    with pytest.raises(_native.NanoError, match="5 weights are no multiple of 2 channels"):
        _native.quantize_channels(np.ones(5, np.float32), np.ones(2, np.float32), 0.1)
    with pytest.raises(_native.NanoError, match="5 weights are no multiple of 0 channels"):
        _native.quantize_channels(np.ones(5, np.float32), np.ones(0, np.float32), 0.1)


def test_the_largest_partial_sum_is_that_of_the_worst_patch() -> None:
    for seed in range(100):
        generator = random.Random(seed)
        channels, count = generator.randint(1, 4), generator.randint(1, 50)
        rows = [[generator.randint(-127, 127) for _ in range(count)] for _ in range(channels)]
        biases = [generator.randint(-(2**22), 2**22) for _ in range(channels)]
        zero_point = generator.choice([-128, 127, 0, generator.randint(-128, 127)])
        low, high = -128 - zero_point, 127 - zero_point
        if seed % 3 == 0:
            low, high = -(2**15), 2**15 - 1
            biases = [generator.randint(-(2**45), 2**45) for _ in range(channels)]
        worst = 0
        for row, bias in zip(rows, biases, strict=True):
            up = sum(max(w * low, w * high, 0) for w in row)
            down = sum(min(w * low, w * high, 0) for w in row)
            worst = max(worst, max(up, -down) + abs(bias))
        found = _native.largest_partial_sum(
            np.array(rows, np.int8).reshape(-1), np.array(biases, np.int64), low, high
        )
        assert found == worst, f"seed {seed}"
