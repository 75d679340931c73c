import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch_nano.calibration.ranges import quantization

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(finite, finite)
def test_every_range_holds_zero_and_itself(first, second):
    low, high = min(first, second), max(first, second)
    chosen = quantization(low, high)
    assert (
        chosen.scale > 0 and math.isfinite(chosen.scale) and float(np.float32(chosen.scale)) == chosen.scale
    )
    assert -128 <= chosen.zero_point <= 127
    smallest, largest = chosen.range
    assert smallest <= 0 <= largest
    # The zero point is rounded to a whole step, so one bound may be half a step short; and the scale is
    # rounded to float32.
    slack = chosen.scale * (0.5 + 255 * 2**-23)
    assert smallest <= low + slack and largest >= high - slack


def test_one_sided_ranges_lose_no_number():
    assert quantization(0.0, 255.0) == quantization(100.0, 255.0)
    assert quantization(0.0, 255.0).zero_point == -128
    assert quantization(-255.0, 0.0).zero_point == 127


def test_a_range_too_small_for_float32_counts_as_zero():
    assert quantization(0.0, 1e-40) == quantization(0.0, 0.0)
