"""Values on the time axis, and how sliding windows and data movement change them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..arithmetic.layout import Shape
from ..ops._window import WindowOperator
from ..ops.move import Move


@dataclass(frozen=True)
class Series:
    """A value on the time axis, in the network over the whole window."""

    #: Number of rows.
    length: int
    #: Samples from one row to the next.
    stride: int
    #: The first row that does not depend on padding before the window.
    first: int = 0
    #: Number of rows at the end that depend on padding after the window.
    late: int = 0

    @property
    def end(self) -> int:
        """One past the newest row that a stream can compute."""
        return self.length - self.late


@dataclass(frozen=True)
class Axis:
    """A sliding kernel window along the time axis."""

    #: Number of rows that the window spans: dilation * (kernel - 1) + 1.
    reach: int
    stride: int
    #: Rows of padding before the first row.
    before: int

    @staticmethod
    def of(operator: WindowOperator) -> Axis:
        return Axis(
            operator.dilation[1] * (operator.kernel[1] - 1) + 1, operator.stride[1], operator.padding[2]
        )


@dataclass(frozen=True)
class MovedRows:
    """A move that keeps the time axis: it shifts whole channels in time, and selects or reorders channels."""

    #: The row of the input in the first row of the output; negative if zeros precede it.
    shift: int
    #: The channel of the input in each channel of the output; -1 for a channel of zeros.
    channels: tuple[int, ...]
    keeps_channels: bool

    @staticmethod
    def of(operator: Move, shape: Shape, made: Shape) -> MovedRows | None:
        """The shift of a move from a value of `shape` to one of shape `made`.

        None if it does not keep the time axis, or selects a single row.
        """
        if not is_series(made) or made[-1] == 1 < shape[-1]:
            return None
        length, numbers = shape[-1], operator.numbers(shape).reshape(made[0], made[-1])
        inside = numbers >= 0
        if not bool(inside.any()):
            return None
        row = int(inside.any(0).nonzero()[0])
        channels = torch.where(inside, numbers // length, -1).amax(1)
        shift = int(numbers[inside[:, row], row][0]) % length - row
        rows = torch.arange(made[-1]) + shift
        there = (rows >= 0) & (rows < length)
        if not torch.equal(numbers, torch.where(there, channels[:, None] * length + rows, -1)):
            return None
        kept = torch.equal(channels, torch.arange(shape[0]))
        return MovedRows(shift, tuple(channels.tolist()), kept)


def is_series(shape: Shape) -> bool:
    """Whether the last dimension is time: (channels, length) or (channels, 1, length)."""
    return len(shape) > 1 and all(side == 1 for side in shape[1:-1])
