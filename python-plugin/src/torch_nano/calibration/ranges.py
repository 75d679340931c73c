"""Scales and zero points of a graph's values from ranges of real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arithmetic.quantization import INDICES, Quantization
from ..errors import QuantizationError, in_module
from ..ir.graph import Graph, Node
from ..ir.rules import Fixed, Own, SameAs, Shared, Signature

#: Lowest and highest real number.
Bounds = tuple[float, float]

#: The smallest normal float32: smaller scales lose precision.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def quantization(low: float, high: float, dtype: str = "int8") -> Quantization:
    """The quantization that covers [low, high] and 0; 0 is exact.

    The scale is a float32. The range [0, 0] has scale 1.

    >>> quantization(0.0, 25.5)
    Quantization(scale=0.10000000149011612, zero_point=-128, dtype='int8')
    >>> quantization(3.0, 12.75).range[0]
    0.0
    >>> quantization(0.0, 0.0)
    Quantization(scale=1.0, zero_point=0, dtype='int8')
    >>> quantization(-1.0, 32767.0, "int16")
    Quantization(scale=1.0, zero_point=0, dtype='int16')
    """
    low, high = min(low, 0.0), max(high, 0.0)
    lowest, highest = Quantization(1.0, 0, dtype).bounds
    steps = (high - low) / (highest - lowest) if dtype == "int8" else max(-low, high) / highest
    scale = float(np.float32(steps))
    if scale < _SMALLEST_SCALE:
        return Quantization(1.0, 0, dtype)
    if dtype != "int8":
        return Quantization(scale, 0, dtype)
    zero_point = math.floor(lowest - low / scale + 0.5)
    return Quantization(scale, min(max(zero_point, lowest), highest))


def union(bounds: Iterable[Bounds]) -> Bounds:
    """The smallest range that covers all of them.

    >>> union([(-1.0, 2.0), (0.0, 3.0)])
    (-1.0, 3.0)
    """
    lows, highs = zip(*bounds, strict=True)
    return min(lows), max(highs)


@dataclass(frozen=True)
class Range:
    """Values that share one quantization, chosen from all their numbers."""

    #: The values whose numbers are observed, in order of execution; the first names the range.
    members: tuple[str, ...]
    dtype: str
    #: Whether the scale is a power of two.
    power_of_two: bool = False

    @property
    def name(self) -> str:
        """The name of the range."""
        return self.members[0]


class QuantizationPlan:
    """The range, or the fixed quantization, of each value of a graph, by the rules of the operators.

    Raises:
        QuantizationError: an operator does not take inputs, or make outputs, of that dtype, or inputs that
            must share a quantization cannot
            (:func:`torch_nano.capture.passes.insert_requantize.insert_requantize` prevents most of that).
    """

    def __init__(self, graph: Graph) -> None:
        #: By value.
        self._plan: dict[str, Range | Quantization] = {}
        self._dtypes = graph.dtypes
        for name in graph.inputs:
            holds_indices = graph.values[name].index_limit is not None
            self._plan[name] = INDICES if holds_indices else Range((name,), graph.dtypes.get(name, "int8"))
        for node in graph.nodes:
            try:
                self._take(node)
            except QuantizationError as error:
                raise in_module(error, graph.module_path(node)) from error

    def _take(self, node: Node) -> None:
        inputs = [self._plan[name] for name in node.inputs]
        signature = self._signature(node, [given.dtype for given in inputs])
        for index, (name, rule) in enumerate(zip(node.outputs, node.operator.rules, strict=True)):
            match rule:
                case Own():
                    self._plan[name] = Range((name,), signature.output(index), rule.power_of_two)
                case SameAs():
                    self._plan[name] = inputs[rule.input]
                case Fixed():
                    self._plan[name] = rule.quantization
                case Shared():
                    self._plan[name] = self._shared(node)

    def _signature(self, node: Node, inputs: Sequence[str]) -> Signature:
        """The dtypes of a node, by those of its inputs and that wanted of its output."""
        operator, wanted = node.operator, self._dtypes.get(node.name)
        taking = [signature for signature in operator.signatures if signature.takes(inputs)]
        if not taking:
            expected = " or ".join(sorted({", ".join(each.inputs) for each in operator.signatures}))
            given = ", ".join(f"{name} is {dtype}" for name, dtype in zip(node.inputs, inputs, strict=True))
            raise QuantizationError(f"{operator.name} takes {expected}; its input {given}")
        for signature in taking:
            if signature.output(0) == (wanted or "int8"):
                return signature
        if wanted is None:
            return taking[0]
        expected = " or ".join(sorted({signature.output(0) for signature in taking}))
        raise QuantizationError(f"{operator.name} makes {expected}; its output {node.name} is to be {wanted}")

    def _shared(self, node: Node) -> Range | Quantization:
        """Merges the ranges of a node's inputs into one."""
        found = list(dict.fromkeys(self._plan[name] for name in node.inputs))
        if len(found) == 1:
            return found[0]
        ranges = [one for one in found if isinstance(one, Range)]
        if len(ranges) < len(found) or len({one.dtype for one in ranges}) > 1:
            raise QuantizationError(f"{node.operator.name} needs inputs that can share one quantization")
        members = {member for one in ranges for member in one.members}
        joint = Range(
            tuple(name for name in self._plan if name in members),
            ranges[0].dtype,
            any(one.power_of_two for one in ranges),
        )
        for name, one in self._plan.items():
            if one in ranges:
                self._plan[name] = joint
        return joint

    def __getitem__(self, value: str) -> Range | Quantization:
        """The range of a value, or its quantization if that is fixed."""
        return self._plan[value]

    @property
    def ranges(self) -> list[Range]:
        """All ranges."""
        return [one for one in dict.fromkeys(self._plan.values()) if isinstance(one, Range)]

    def has_range(self, value: str) -> bool:
        """Whether a value's numbers are observed for a range."""
        one = self._plan[value]
        return isinstance(one, Range) and value in one.members

    def shares_range(self, value: str) -> bool:
        """Whether a value has a part in a range that other values have a part in, too."""
        one = self._plan[value]
        return isinstance(one, Range) and value in one.members and len(one.members) > 1

    def quantization(self, value: str, choose: Callable[[Range], Quantization]) -> Quantization:
        """The quantization of a value; `choose` returns that of a range."""
        one = self._plan[value]
        if isinstance(one, Quantization):
            return one
        return choose(one).to_power_of_two() if one.power_of_two else choose(one)


def follows_rules(node: Node, inputs: Sequence[Quantization], outputs: Sequence[Quantization]) -> bool:
    """Whether the quantizations of a node's values follow its operator's rules."""
    dtypes = [[one.dtype for one in quantizations] for quantizations in (inputs, outputs)]
    if not any(each.takes(dtypes[0]) and each.makes(dtypes[1]) for each in node.operator.signatures):
        return False

    def follows(rule: object, output: Quantization) -> bool:
        match rule:
            case Own():
                return not rule.power_of_two or output == output.to_power_of_two()
            case SameAs():
                return rule.input < len(inputs) and output == inputs[rule.input]
            case Fixed():
                return output == rule.quantization
        return all(given == output for given in inputs)

    rules = node.operator.rules
    return len(rules) == len(outputs) and all(map(follows, rules, outputs))


def calibrated(ranges: Mapping[str, Bounds]) -> Callable[[Range], Quantization]:
    """Chooses for each range the quantization that covers its calibrated bounds; for
    :func:`torch_nano.calibration.quantize.quantize`.
    """
    return lambda one: quantization(*union(ranges[name] for name in one.members), one.dtype)
