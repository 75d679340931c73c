"""What to do about the errors that a comparison has found, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..calibration.channel_ranges import FEWEST_LEVELS
from ..ir.precision import as_precision

if TYPE_CHECKING:
    from .report import Comparison, LayerComparison

#: Share of saturated numbers from which more data is worth while.
_SATURATED = 0.01
#: Levels of the middle numbers below which outliers take most of the range.
_CENTRAL_LEVELS = 64
#: dB of a layer alone: its noise then has a tenth of the amplitude of its numbers.
_OWN_SQNR = 20.0
#: dB of an output below which classes change: the noise has more than a sixth of the amplitude.
LEAST_SQNR = 15.0
#: dB between the errors at an output and those that one layer's rounding causes alone, beyond which 16 bits
#: for it gain less than half a dB.
_NEGLIGIBLE = 10.0
#: Layers that are named.
_NAMED = 3


def advice_for(comparison: Comparison) -> list[str]:
    """Sentences that say what to do, the most important first; empty if nothing needs it."""
    least = comparison.least_sqnr
    # Of a module with layers of both, int8 is what it was asked for: others are wide by their operator.
    by_dtype = sorted(comparison.layers, key=lambda layer: layer.dtype == "int8")
    dtypes = {
        layer.module_path: layer.dtype
        for layer in by_dtype
        if layer.own_range and layer.operator not in ("input", "requantize")
    }
    advised = [(layer, _advice(layer, dtypes, least)) for layer in comparison.layers]
    scaling = [line for layer, line in advised if line and layer.operator == "input"]
    found = [*scaling, *[line for layer, line in advised if line and layer.operator != "input"][:_NAMED]]
    if not found and least < LEAST_SQNR:
        inexact = sum(math.isfinite(layer.own_sqnr) for layer in comparison.layers)
        found.append(
            f"no layer stands out, the errors of {inexact} add up: give 16 bits to those that matter most "
            "(precision='auto'), or train the model through this arithmetic (tn.prepare_qat)"
        )
    return found


def may_need_16_bits(layer: LayerComparison) -> bool:
    """Whether a layer loses by its rounding to int8, and can have 16 bits."""
    return layer.dtype == "int8" and bool(layer.around and _loss(layer)) and not _of_range(layer)


def _advice(layer: LayerComparison, dtypes: Mapping[str, str], least: float) -> str:
    """What to do about one layer; "" if nothing.

    Args:
        dtypes: of all layers, by the paths of their modules.
        least: :attr:`.report.Comparison.least_sqnr`.
    """
    of_range, loss = _of_range(layer), _loss(layer)
    if of_range or not loss:
        return of_range
    if layer.operator == "table" and layer.dtype != "int8" and layer.own_sqnr < _OWN_SQNR:
        return (
            f"{layer.title}: {loss}: its function is too steep at an end of its input's range for the lines "
            "of a table: keep the input away from there, as log(x + c) does with a c of a tenth of the "
            "largest x, or compute it before the model"
        )
    wide = ""
    if may_need_16_bits(layer):
        if layer.rounding_alone is None or layer.rounding_alone > least + _NEGLIGIBLE:
            return ""
        precision = as_precision({**dtypes, **dict.fromkeys(layer.around, "int16")})
        wide = f"give it 16 bits, precision={precision}, or "
    return f"{layer.title}: {loss}: {wide}train it through this arithmetic (tn.prepare_qat)"


def _of_range(layer: LayerComparison) -> str:
    """What to do about the range of a layer; "" if nothing."""
    few, varying = _few_levels(layer)
    if layer.operator == "input" and 0 < len(few) < len(varying):
        used = [layer.levels[channel] for channel in few]
        levels = f"{min(used)} to {max(used)}" if min(used) < max(used) else str(used[0])
        all_levels = "256" if layer.dtype == "int8" else "65,536"
        verb = "channel {} uses" if len(few) == 1 else "channels {} use"
        return (
            f"{layer.title}: {verb.format(spans(few))} {levels} of {all_levels} levels: scale them, by a "
            "BatchNorm or (x - mean) / std per channel at the start of the model"
        )
    if layer.own_range and layer.saturated >= _SATURATED:
        return f"{layer.title}: {layer.saturated:.1%} of its numbers saturate: calibrate with data like these"
    least = FEWEST_LEVELS if layer.own_sqnr >= _OWN_SQNR else _CENTRAL_LEVELS
    if layer.own_range and not layer.shares_range and varying and 0 < layer.central_levels < least:
        return (
            f"{layer.title}: outliers take the range, 99.9 % of its numbers use {layer.central_levels} of "
            "256 levels: calibrate with method='percentile'"
        )
    return ""


def _loss(layer: LayerComparison) -> str:
    """What a layer loses by itself, in words; "" if it is little."""
    few, varying = _few_levels(layer)
    if layer.own_sqnr < _OWN_SQNR:
        shared = ", in a range that it shares with what it is concatenated with" if layer.shares_range else ""
        return f"keeps only {layer.own_sqnr:.1f} dB by itself{shared}"
    if layer.own_range and 2 * len(few) > len(varying):
        # Its readers lose what the few large channels hide in its own figures.
        return f"{len(few)} of {len(varying)} channels use fewer than {FEWEST_LEVELS} levels"
    return ""


def _few_levels(layer: LayerComparison) -> tuple[list[int], list[int]]:
    """The channels that use few levels, and all that vary."""
    varying = [channel for channel, levels in enumerate(layer.levels) if levels]
    return [channel for channel in varying if layer.levels[channel] < FEWEST_LEVELS], varying


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers, those in a row as a span.

    >>> spans([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in found)
