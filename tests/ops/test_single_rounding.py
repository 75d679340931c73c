"""Operators that round once, half a step from the real numbers: the error bounds that nano-core documents."""

import pytest
from torch_nano.ir.operator import Operator
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.expression import Expression
from torch_nano.ops.table import Table

from .cases import make

#: Half a step, and the error of float32.
HALF = 0.5 + 2**-10


@pytest.mark.parametrize("operator", [AveragePool2d, Expression, Table])
def test_errors_stay_below_the_documented_bound(operator: type[Operator]) -> None:
    worst = 0.0
    for seed in range(100):
        case = make(operator, seed)
        output = case.output_quantization
        if output.dtype == "int16":
            continue  # float32 is too coarse as a reference; test_interpolation measures the tables' error.
        real = (case.real_output().double() / output.scale + output.zero_point).clamp(*output.bounds)
        error = float((case.output().double() - real).abs().max())
        assert error <= HALF, f"seed {seed}: {error} steps, {case.operator}"
        worst = max(worst, error)
    # The bound is tight.
    assert worst > 0.49
