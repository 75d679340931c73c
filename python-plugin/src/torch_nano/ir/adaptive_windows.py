"""The windows of adaptive pools, and how windows of one size have the same means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm, prod

#: The first index and the one after the last.
Bounds = tuple[int, int]
#: Windows of one size may read so many times the elements of input or output.
_LARGEST_REPETITION = 6


def bounds(side: int, windows: int) -> list[Bounds]:
    """The bounds of each window along one axis, as torch chooses them.

    >>> bounds(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(index * side // windows, -(-(index + 1) * side // windows)) for index in range(windows)]


@dataclass(frozen=True)
class EqualWindows:
    """Windows of one size along one axis."""

    kernel: int
    stride: int
    #: The input's elements that they slide over; None for all in order.
    elements: tuple[int, ...] | None = None

    @staticmethod
    def of(side: int, windows: int) -> EqualWindows:
        """Those with the means of an adaptive pool: where its windows differ in size, elements repeat.

        >>> EqualWindows.of(7, 3)
        EqualWindows(kernel=3, stride=2, elements=None)
        >>> EqualWindows.of(2, 3)
        EqualWindows(kernel=2, stride=2, elements=(0, 0, 0, 1, 1, 1))
        """
        every = bounds(side, windows)
        sizes = {end - start for start, end in every}
        strides = {second - first for (first, _), (second, _) in pairwise(every)}
        kernel = lcm(*sizes)
        if len(sizes) == 1 and len(strides) < 2:
            return EqualWindows(kernel, strides.pop() if strides else kernel)
        elements = [
            element
            for start, end in every
            for element in range(start, end)
            for _ in range(kernel // (end - start))
        ]
        return EqualWindows(kernel, kernel, tuple(elements))


def in_one_layer(sides: Sequence[int], windows: Sequence[int]) -> list[EqualWindows] | None:
    """For each axis the equal windows of an adaptive average pool; None where these read too many elements.

    >>> in_one_layer((3,), (7,)) is not None, in_one_layer((9, 12), (7, 7)) is None
    (True, True)
    """
    every = [EqualWindows.of(side, count) for side, count in zip(sides, windows, strict=True)]
    read = prod(
        side if axis.elements is None else len(axis.elements) for side, axis in zip(sides, every, strict=True)
    )
    return every if read <= _LARGEST_REPETITION * max(prod(sides), prod(windows)) else None
