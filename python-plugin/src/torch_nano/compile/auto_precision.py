"""Spends int16 on the fewest layers that bring the outputs to a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..arguments import positive_number, shown
from ..calibration.batches import Batch
from ..calibration.calibrate import Observed
from ..calibration.quantize import QuantizedGraph
from ..capture.passes.insert_requantize import with_dtypes
from ..comparison.measure import compare_outputs
from ..comparison.rounding import RoundingErrors, worst_sqnr
from ..comparison.samples import KeptSamples
from ..equalization.equalize import quantize_observed
from ..errors import AccuracyWarning, InputError, warn
from ..ir.graph import Graph
from ..ir.precision import LayerDtype, around, computing_nodes, modules_without
from .precision import with_inputs

#: dB of the outputs: the noise has a tenth of their amplitude.
TARGET_SQNR = 20.0
#: Samples on which the outputs are compared: with fewer the layers that are left out fit these samples alone.
SAMPLES = 32
#: dB that are given up for fewer layers where int16 in all of them does not reach the target.
_GIVEN_UP = 0.5
#: Attempts to do without one of the modules that were chosen.
_ATTEMPTS = 24
#: Modules that a warning names.
_NAMED = 3

_Modules = frozenset[str]


def target_of(precision: object, target_sqnr: object) -> float | None:
    """The target of the search for a precision, in dB; None without a search.

    Raises:
        InputError: it is no number above 0, or there is one without a search.
    """
    if precision != "auto":
        if target_sqnr is not None:
            raise InputError(
                f"target_sqnr is {shown(target_sqnr)} and precision {shown(precision)}; it is the target of "
                "precision='auto'"
            )
        return None
    return (
        TARGET_SQNR if target_sqnr is None else positive_number("target_sqnr", target_sqnr, error=InputError)
    )


def with_auto_precision(
    graph: Graph,
    observed: Observed,
    kept: KeptSamples,
    target: float,
    cut: Callable[[Graph], Graph] = lambda graph: graph,
) -> Graph:
    """A graph with the layers in int16 that bring the worst output to a target; see :class:`AutoPrecision`.

    Args:
        graph: optimized, in int8.
        observed: its values on the calibration data.
        kept: samples of that data.
        target: in dB.
        cut: takes the layers that learn on the device off a graph.

    Warns:
        AccuracyWarning: the target cannot be reached.
    """
    return AutoPrecision(graph, observed, list(kept.samples(graph, SAMPLES)), cut).run(target)


class AutoPrecision:
    """The search for the layers that need int16.

    A value is not rounded to int8 if the layer that makes it and those that read it compute in int16. The
    values are sorted by the error at the outputs that their rounding causes by itself, in float with all
    others exact. The modules around the first values are taken, as many as bring the integer network to the
    target (by bisection). Then modules are left out one by one, as long as the target holds.

    The result is deterministic. It takes one run of the float network for each value, and at most ``26 +
    log2(values)`` of the integer network.

    Args:
        graph: optimized, in int8.
        observed: its values on the calibration data.
        data: samples for the comparison.
        cut: takes the layers that learn on the device off a graph.
    """

    def __init__(
        self, graph: Graph, observed: Observed, data: Sequence[Batch], cut: Callable[[Graph], Graph]
    ) -> None:
        self._graph, self._observed, self._data, self._cut = graph, observed, data, cut
        self._nodes = computing_nodes(cut(graph))
        #: The modules that stay in int8, and an operator of each that has no other kernel.
        self._fixed = modules_without(cut(graph), "int16")
        #: dB of the worst output, by the modules in int16.
        self._measured: dict[_Modules, float] = {}

    def run(self, target: float) -> Graph:
        """The graph with the layers in int16 that bring the worst output to `target` dB, cut.

        Warns:
            AccuracyWarning: the target cannot be reached.
        """
        modules: _Modules = frozenset()
        if self._sqnr(modules) < target:
            groups = self._groups()
            every = _first(groups, len(groups))
            if self._sqnr(every) < target:
                self._warn(every, target)
                target = self._sqnr(every) - _GIVEN_UP
            modules = self._pruned(self._fewest(groups, target), groups, target)
        return self._with_int16(modules)

    def _fewest(self, groups: Sequence[_Modules], target: float) -> _Modules:
        """The first groups that reach the target together."""
        low, high = 0, len(groups)
        while high - low > 1:
            middle = (low + high) // 2
            if self._sqnr(_first(groups, middle)) >= target:
                high = middle
            else:
                low = middle
        return _first(groups, high)

    def _pruned(self, modules: _Modules, groups: Sequence[_Modules], target: float) -> _Modules:
        """Leaves out modules where the target still holds, those of the smallest errors first."""
        order = dict.fromkeys(path for group in groups for path in sorted(group) if path in modules)
        for path in list(order)[::-1][:_ATTEMPTS]:
            if self._sqnr(modules - {path}) >= target:
                modules -= {path}
        return modules

    def _groups(self) -> list[_Modules]:
        """For each value the modules that make and read it, those of the largest errors first."""
        graph, quantized = self._quantized(frozenset())
        modules = {}
        for name in quantized.graph.values:
            nodes = around(quantized.graph, name)
            modules[name] = frozenset(quantized.graph.module_path(node) for node in nodes).difference(
                self._fixed
            )
        names = [name for name, found in modules.items() if found]
        errors = RoundingErrors(graph, quantized, self._data)
        by_error = sorted((errors.sqnr({name}), place) for place, name in enumerate(names))
        return list(dict.fromkeys(modules[names[place]] for _, place in by_error))

    def _sqnr(self, modules: _Modules) -> float:
        if modules not in self._measured:
            outputs = compare_outputs(*self._quantized(modules), self._data)
            self._measured[modules] = worst_sqnr(outputs)
        return self._measured[modules]

    def _quantized(self, modules: _Modules) -> tuple[Graph, QuantizedGraph]:
        return quantize_observed(self._with_int16(modules), self._observed)

    def _with_int16(self, modules: _Modules) -> Graph:
        wanted: dict[str, LayerDtype] = {
            node.name: "int16" for node in self._nodes if self._graph.module_path(node) in modules
        }
        return self._cut(with_dtypes(self._graph, with_inputs(self._graph, wanted)))

    def _warn(self, modules: _Modules, target: float) -> None:
        """Warns that int16 in all layers that have it does not reach the target, and says why."""
        best = self._sqnr(modules)
        warn(
            f"16 bits in all layers that have them bring the outputs to {best:.1f} dB (SQNR) on the "
            f"calibration data, from {self._sqnr(frozenset()):.1f} dB in int8; the target is {target:.1f}. "
            f"The fewest layers that keep {best - _GIVEN_UP:.1f} dB are in 16 bits now; "
            f"{self._rest(modules)}: nano.compare(model, data) shows where, tn.prepare_qat trains the model "
            "through this arithmetic",
            AccuracyWarning,
        )

    def _rest(self, modules: _Modules) -> str:
        """What is lost with int16 in all layers that have it, in words."""
        if not self._fixed:
            return "the rest is lost in the weights' 8 bits"
        graph, quantized = self._quantized(modules)
        values = quantized.graph.values
        narrow = {name for name in values if quantized.graph.quantization(name).dtype == "int8"}
        named = ", ".join(f"{operator} of {path!r}" for path, operator in list(self._fixed.items())[:_NAMED])
        more = f" and {len(self._fixed) - _NAMED} more" if len(self._fixed) > _NAMED else ""
        kept = RoundingErrors(graph, quantized, self._data).sqnr(narrow)
        verb = "has" if len(self._fixed) == 1 else "have"
        return (
            f"{named}{more} {verb} no 16 bits, and the values that stay in 8 keep {kept:.1f} dB with exact "
            "weights; the rest is lost in the weights' 8 bits"
        )


def _first(groups: Sequence[_Modules], count: int) -> _Modules:
    return frozenset().union(*groups[:count])
