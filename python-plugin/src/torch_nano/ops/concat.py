"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _native
from ..arithmetic.layout import channels_last
from ..ir.call import Call, UnsupportedNodeError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value

aten = torch.ops.aten
_, _MOST_INPUTS = _native.operators()["concat"]["inputs"]


@dataclass(frozen=True)
class Concat(Operator):
    """Concatenates the inputs along a dimension; all values have one quantization.

    On integers of one quantization this is ``torch.cat``, so ``torch_nano.functional`` has no such function.

    >>> Layer(Concat(0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]).float_run()
    (tensor([[1., 2., 3.]]),)
    """

    name = "concat"

    #: The dimension in shapes without batch: 0 for the channels.
    dimension: int

    @property
    def pixelwise(self) -> bool:
        return self.dimension == 0

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [
            aten.cat.default,
            aten.concat.default,
            aten.concatenate.default,
            aten.dstack.default,
            aten.hstack.default,
            aten.vstack.default,
        ]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        values = call.inputs("tensors")
        ranks = {len(value.shape) for value in values}
        if len(ranks) > 1:
            raise UnsupportedNodeError(
                f"its tensors have different numbers of dimensions: {[value.shape for value in values]}",
                "give them one, by unsqueeze",
            )
        if len(values) > _MOST_INPUTS:
            raise UnsupportedNodeError(
                f"it has {len(values)} inputs; nano-core takes at most {_MOST_INPUTS}",
                "concatenate some of them first",
            )
        rank = ranks.pop() + 1
        dimension = {"vstack": 0, "hstack": 1, "dstack": 2}.get(call.function)
        if dimension is None:
            dimension = call.arguments["dim"] % rank
        if not 0 < dimension < rank:
            raise UnsupportedNodeError(
                f"it goes along dimension {dimension} of {rank}, where the batch is dimension 0",
                "concatenate along another dimension",
            )
        return cls(dimension - 1), values, {}

    def attributes(self, layer: Layer) -> dict[str, int]:
        # The axis counts height, width, channels; a shape with two dimensions is channels, width.
        spatial = {2: (1,), 3: (0, 1)}.get(len(layer.input_shapes[0]), ())
        return {"axis": (2, *spatial)[self.dimension]}

    def float_run(self, layer: Layer) -> Tensor:
        return torch.cat(list(layer.inputs), self.dimension + 1)

    def integer_run(self, layer: Layer) -> Tensor:
        return self.float_run(layer)

    def train_run(self, layer: Layer) -> Tensor:
        return channels_last(self.float_run(layer))
