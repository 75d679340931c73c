"""Tables of int16: the entries of a function of one variable, between which nano-core interpolates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..arithmetic.fixed_point import round_half_away
from ..arithmetic.quantization import Quantization
from ..errors import QuantizationError

#: A function of one variable, element by element, of any float dtype.
RealFunction = Callable[[Tensor], Tensor]
#: Lines between the entries.
_LINES = 512
#: A jump of so many steps of the output, one step of int8, does not count.
_SMALLEST_JUMP = 256
#: Halvings of the distance of two inputs, in search of a jump.
_HALVINGS = 20


def interpolation_table(function: RealFunction, input_: Quantization, output: Quantization) -> Tensor:
    """int16 [513]: the table of a function; ``nano-core/src/ops/table.rs`` has the definition and a bound of
    the error.

    Every int16 input can be negative, also where the function's domain is not. Outside of the domain the
    function counts as its value at the nearest input inside, and infinity as the output's largest number.

    Raises:
        QuantizationError: the function is not a number at any input, or it jumps, where no line is near it.

    >>> interpolation_table(torch.sqrt, Quantization(1.0, 0, "int16"), Quantization(1.0, 0, "int16"))[::128]
    tensor([  0,   0,   1, 128, 181], dtype=torch.int16)
    """
    continued = _continue(function, input_, output)
    _check_jumps(function, continued, input_, output)
    return entries(continued, _float32_range(input_), _float32_range(output))


def entries(
    function: RealFunction, input_range: tuple[float, float], output_range: tuple[float, float]
) -> Tensor:
    """int16 [513]: the entries for an input and an output whose ranges from -32768 to 32767 are these.

    Computed in float32, in TensorFlow Lite's order.
    """
    low, high = torch.tensor(input_range, dtype=torch.float32)
    smallest, largest = torch.tensor(output_range, dtype=torch.float32)
    spacing = (high - low) / _LINES
    places = low + torch.arange(_LINES + 1, dtype=torch.float32) * spacing
    x = torch.cat([places, places[:-1] + spacing / 2, high[None]])
    y = function(x) * (2.0**16 / (largest - smallest))
    exact, middles, last = y.split([_LINES + 1, _LINES, 1])
    samples = round_half_away(exact).float()
    lines = round_half_away((exact[1:] + samples[:-1]) / 2)
    errors = lines - round_half_away(middles)
    table = torch.cat([samples[:-1] - round_half_away(errors / 2), round_half_away(last)])
    return table.clamp(-(2**15), 2**15 - 1).to(torch.int16)


def interpolate(table: Tensor, x: Tensor) -> Tensor:
    """The output of a table for int16 numbers.

    >>> interpolate(torch.arange(-256, 257, dtype=torch.int16), torch.tensor([-32768, 0, 63, 64, 32767]))
    tensor([-256,    0,    0,    1,  256], dtype=torch.int16)
    """
    wide, table = x.to(torch.int64), table.to(x.device, torch.int64)
    index = (wide >> 7) + 256
    low, high = table[index], table[index + 1]
    return (low + (((high - low) * (wide & 127) + 64) >> 7)).to(torch.int16)


def _float32_range(quantization: Quantization) -> tuple[float, float]:
    low, high = torch.tensor(quantization.levels, dtype=torch.float32) * quantization.scale
    return float(low), float(high)


def _every(quantization: Quantization) -> Tensor:
    """All numbers of a quantization, in order; float64."""
    low, high = quantization.levels
    return torch.arange(low, high + 1, dtype=torch.float64) * quantization.scale


def _continue(function: RealFunction, input_: Quantization, output: Quantization) -> RealFunction:
    """The function without NaN and infinity; see :func:`interpolation_table`."""
    every = _every(input_).float()
    domain = every[~function(every).isnan()]
    if not len(domain):
        raise QuantizationError(f"it is not a number at any input, which can be {input_.range}")
    low, high = output.range

    def continued(x: Tensor) -> Tensor:
        y = function(x)
        outside = y.isnan()
        after = torch.searchsorted(domain, x[outside].float()).clamp(1, len(domain) - 1)
        around = torch.stack([domain[after - 1], domain[after]])
        nearest = (around - x[outside]).abs().argmin(0, keepdim=True)
        y = y.masked_scatter(outside, function(around.gather(0, nearest)[0].to(x.dtype)))
        return y.nan_to_num(posinf=high, neginf=low)

    return continued


def _check_jumps(
    function: RealFunction, continued: RealFunction, input_: Quantization, output: Quantization
) -> None:
    """Raises an error if the function jumps between two inputs: halving their distance does not halve their
    difference. At a pole, where it is infinite, it may.
    """

    def steps(x: Tensor) -> Tensor:
        return (continued(x) / output.scale).clamp(*output.bounds)

    every = _every(input_)
    y = steps(every)
    poles = function(every).isinf()
    steep = ((y[1:] - y[:-1]).abs() > _SMALLEST_JUMP) & ~poles[1:] & ~poles[:-1]
    low, high = every[:-1][steep], every[1:][steep]
    first = (steps(high) - steps(low)).abs()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        before = (steps(middle) - steps(low)).abs() > (steps(high) - steps(middle)).abs()
        low, high = torch.where(before, low, middle), torch.where(before, middle, high)
    jumps = (steps(high) - steps(low)).abs()
    found = (jumps > first / 2).nonzero()
    if len(found):
        where = int(found[0])
        raise QuantizationError(
            f"it jumps by {float(jumps[where]) * output.scale:.3g} at {float(high[where]):.3g}; a table of "
            "int16 is a straight line between every 128th input: leave this module in int8"
        )
