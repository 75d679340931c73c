"""The delay line of a stream: the rows of earlier steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.layout import device_shape
from ..arithmetic.tensors import quantize_tensor
from ..ir.call import Call
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value


@dataclass(frozen=True)
class History(Operator):
    """A delay line: ``rows`` rows of earlier steps, then those of this step; a state on the device.

    Rows are along the height, or along the width if the height is 1: (channels, length) becomes (channels,
    rows + length), and (channels,) counts as length 1. Each run here, and each sample of a batch in
    nano-core, is the first step of a stream: the earlier rows are ``start``, a real number per channel.
    ``_native.Stream`` keeps the state from step to step.

    >>> history = History(rows=2, start=(0.5,))
    >>> Layer(history, [torch.tensor([[[3.0, 4.0]]])]).float_run()
    (tensor([[[0.5000, 0.5000, 3.0000, 4.0000]]]),)
    """

    name = "history"

    rows: int
    start: tuple[float, ...] = field(repr=False)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return []

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        raise TypeError("no ATen call becomes a history; NanoModule.stream makes it")

    def float_run(self, layer: Layer) -> Tensor:
        return self._after(torch.tensor(self.start, dtype=layer.input.dtype), layer.input)

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        start = torch.tensor(self.start, dtype=torch.float64)
        return {"start": quantize_tensor(start, layer.output_quantization)}

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"rows": self.rows}

    def integer_run(self, layer: Layer) -> Tensor:
        return self._after(layer.tensors["start"], layer.input)

    def _after(self, start: Tensor, x: Tensor) -> Tensor:
        """Prepends `start` [channels] to `x` [N, channels, ...], once for each of `rows`."""
        if x.dim() == 2:
            x = x.unsqueeze(2)
        height, *_ = device_shape(tuple(x.shape[1:]))
        axis = x.dim() - (1 if height == 1 else 2)
        shape = list(x.shape)
        shape[axis] = self.rows
        start = start.to(x.device).reshape(-1, *[1] * (x.dim() - 2)).expand(shape)
        return torch.cat([start, x], axis)
