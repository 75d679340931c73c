"""Tables of int16: the error bound that nano-core documents, and functions that have no such table."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_nano import to_nano
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.errors import QuantizationError
from torch_nano.ops._interpolation import RealFunction, interpolate, interpolation_table
from torch_nano.ops.table import UNARY_FUNCTIONS, Table

from .cases import JUMPING, NOT_EVERYWHERE

#: Functions with a continuous derivative and a finite second one.
SMOOTH = ("asinh", "atan", "cos", "erf", "exp", "gelu", "mish", "sigmoid", "silu", "sin", "softplus", "tanh")
#: Functions whose slope jumps.
KINKED = ("abs", "hardsigmoid", "leaky_relu", "softshrink")
LEVELS = torch.arange(-(2**15), 2**15)


def int16(largest: float) -> Quantization:
    """The quantization whose largest number is this."""
    return Quantization(largest / 32767, 0, "int16")


def exact(function: RealFunction, input_: Quantization, output: Quantization) -> Tensor:
    """The function in steps of the output, in float64, at every input."""
    return function(LEVELS.double() * input_.scale) / output.scale


def largest_around(differences: Tensor) -> Tensor:
    """For each input the largest of these between the two entries around it and up to the next."""
    by_line = differences.abs().reshape(512, 128).amax(1)
    return torch.maximum(by_line, torch.cat([by_line[1:], by_line[-1:]])).repeat_interleave(128)


def bounds(real: Tensor, bend: float) -> Tensor:
    """3072 c + d + 3; the second derivative c is `bend` times the second differences."""
    padded = torch.cat([2 * real[:1] - real[1:2], real, 2 * real[-1:] - real[-2:-1]])
    slope, second = real.diff(append=padded[-1:]), padded.diff(n=2)
    return 3072 * bend * largest_around(second) + largest_around(slope) + 3


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_errors_stay_below_the_documented_bound(name: str) -> None:
    function = Table(name).function_of
    for seed in range(12):
        rng = np.random.default_rng(seed)
        input_ = int16(2.0 ** rng.uniform(-3, 4))
        reached = max(1e-3, float(function(LEVELS.double() * input_.scale).abs().max()))
        # Some outputs are clamped.
        output = int16(reached * 2.0 ** rng.uniform(-1, 2))
        real = exact(function, input_, output)
        y = interpolate(interpolation_table(function, input_, output), LEVELS)
        # Where the slope jumps by k, c counts as k / 64.
        allowed = bounds(real, 1 if name in SMOOTH else 1 / 64)
        inside = largest_around(real) < 32767
        beyond = torch.where(inside, (y - real).abs() - allowed, 0.0).max()
        assert beyond <= 0, f"seed {seed}: {beyond} steps beyond the bound, {input_} to {output}"


@pytest.mark.parametrize("name", [name for name in UNARY_FUNCTIONS if name not in JUMPING])
def test_tables_of_int16_are_nearer_than_those_of_int8(name: str) -> None:
    """Also where a function is infinite or not a number for some inputs."""
    function, input_ = Table(name).function_of, int16(4.0)
    real = exact(function, input_, Quantization(1.0, 0, "int16"))
    finite = real[real.isfinite()].abs()
    # Of functions with a pole the outputs of numbers that are not next to it.
    output = int16(float(finite.quantile(0.99) if name in NOT_EVERYWHERE else finite.max()))
    real = exact(function, input_, output)
    inside = real.isfinite() & (real.abs() < 32767)
    wide = interpolate(interpolation_table(function, input_, output), LEVELS)
    coarse = function((LEVELS.double() / 256).round() * 256 * input_.scale) / output.scale
    narrow = ((coarse / 256).round() * 256).clamp(-32768, 32512)
    errors, of_int8 = ((y - real)[inside].abs() for y in (wide, narrow.nan_to_num(0.0)))
    assert errors.max() < of_int8.max() and errors.square().mean() < of_int8.square().mean() / 4


@pytest.mark.parametrize("name", sorted(JUMPING))
def test_functions_that_jump_are_refused(name: str) -> None:
    arguments = {"threshold": (("threshold", 0.3), ("value", -0.2))}.get(name, ())
    with pytest.raises(QuantizationError, match=r"it jumps by .* leave this module in int8"):
        interpolation_table(Table(name, arguments).function_of, int16(4.0), int16(4.0))


@pytest.mark.parametrize(
    "function", [lambda x: torch.log(x.abs() + 1e-9), lambda x: torch.sigmoid(10_000 * x), torch.reciprocal]
)
def test_steep_functions_and_poles_are_no_jumps(function: RealFunction) -> None:
    assert len(interpolation_table(function, int16(4.0), int16(4.0))) == 513


def test_a_function_that_is_never_a_number_is_refused() -> None:
    with pytest.raises(QuantizationError, match="not a number at any input"):
        interpolation_table(lambda x: x * torch.nan, int16(1.0), int16(1.0))


class Sign(nn.Module):
    """``sign(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


def test_the_module_that_jumps_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Sign())
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(QuantizationError, match=r"module '1'.*sign.* it jumps by .* at 0"):
        to_nano(model, x[:1], calibrate=x, check=False, precision={"1": "int16"})
