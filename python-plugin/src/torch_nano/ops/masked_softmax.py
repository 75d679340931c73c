"""Softmax over the channels that a constant mask leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._channels_first import over_channels
from ._steps import run_steps, step
from .softmax import Softmax, probabilities


@dataclass(frozen=True)
class MaskedSoftmax(Softmax):
    """:class:`.softmax.Softmax` over the channels that a mask leaves, and 0 for the others.

    The mask of pixel i, in the order of height and width, is its row ``i % rows``. A row is a text of "1" for
    each channel that takes part and "0" for each that does not; rows have a space between them.

    >>> Layer(MaskedSoftmax("101"), [torch.zeros(1, 3)]).float_run()
    (tensor([[0.5000, 0.0000, 0.5000]]),)
    """

    name = "masked_softmax"
    pixelwise = False

    mask: str = field(default="", repr=False)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        """As of a softmax with one more argument, "excluded": bool, broadcast to its input."""
        operator, (item,), _ = over_channels(Softmax(), call)
        steps, value = (item.steps, item.value) if isinstance(item, Moved) else ((), item)
        excluded = call.arguments["excluded"].expand(1, *value.shape)
        rows = run_steps(list(map(step, steps)), excluded)[0].flatten(1 if len(value.shape) > 1 else 0)
        rows = ~rows.reshape(rows.shape[0], -1).T
        if not bool(rows.any(1).all()):
            raise UnsupportedNodeError(
                "its mask excludes all positions of a row, of which torch makes NaN",
                "leave a position in each row",
            )
        texts = ["".join("1" if takes_part else "0" for takes_part in row) for row in _period(rows).tolist()]
        masked = cls(" ".join(texts))
        if isinstance(operator, MovedBack):
            return MovedBack(masked, operator.steps), [item], {}
        return masked, [item], {}

    @cached_property
    def _rows(self) -> Tensor:
        """bool [rows, channels]: the channels that take part."""
        return torch.tensor([[letter == "1" for letter in row] for row in self.mask.split()])

    def _taking_part(self, x: Tensor) -> Tensor:
        """The mask of x [N, channels, ...], [channels, ...]."""
        sides = x.shape[2:]
        rows = self._rows.to(x.device)
        return rows.repeat(prod(sides) // len(rows), 1).T.reshape(x.shape[1], *sides)

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"mask_rows": len(self._rows)}

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        return {"mask": self._rows.to(torch.int8)}

    def float_run(self, layer: Layer) -> Tensor:
        x = layer.input
        return torch.softmax(x.masked_fill(~self._taking_part(x), -torch.inf), 1)

    def integer_run(self, layer: Layer) -> Tensor:
        return probabilities(layer, self._taking_part(layer.input))


def _period(rows: Tensor) -> Tensor:
    """The first rows that all rows repeat."""
    count = len(rows)
    for period in range(1, count + 1):
        if count % period == 0 and torch.equal(rows, rows[:period].repeat(count // period, 1)):
            return rows[:period]
    return rows


_call = Definition(MaskedSoftmax)


@functional
def masked_softmax(x: Tensor, x_quantization: Quantization, *, mask: Tensor) -> Tensor:
    """Softmax of int8 numbers over the part of dimension 1 that a mask leaves; the others become 0.

    See :func:`softmax`, to which it is equal on what the mask leaves.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.
        mask: bool [rows, channels], of which a row has pixel i for its ``i % rows``; True for channels that
            take part, at least one in each row.

    Returns:
        float32 of the same shape that holds int8 numbers.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> x, mask = torch.tensor([[0.0, 50.0, 0.0]]), torch.tensor([[True, False, True]])
    >>> masked_softmax(x, Quantization(0.1, 0), mask=mask)
    tensor([[   0., -128.,    0.]])
    """
    rows = ("".join("1" if takes_part else "0" for takes_part in row) for row in mask.tolist())
    return _call(MaskedSoftmax(" ".join(rows)), [x], [x_quantization])
