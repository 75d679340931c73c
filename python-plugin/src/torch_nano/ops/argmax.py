"""Index of the largest channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import Quantization
from ..ir.call import Call, Moved, MovedBack, UnsupportedNodeError
from ..ir.graph import Graph, Node
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, functional
from ._channels_first import channels_back, channels_first
from .move import Move


@dataclass(frozen=True)
class Argmax(Operator):
    """The index of the largest channel, of equal ones the first: int64 [N, 1, ...] in float, int32 on the
    device.

    >>> Layer(Argmax(), [torch.tensor([[1.0, 3.0, 3.0]])]).float_run()
    (tensor([[1]]),)
    """

    name = "argmax"
    pixelwise = True

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.argmax.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        value, dim = call.input("self"), call.arguments["dim"]
        if dim is None:
            raise UnsupportedNodeError("it mixes the samples of a batch", "name the dimension: x.argmax(1)")
        dim %= len(value.shape) + 1
        if dim == 0:
            raise UnsupportedNodeError("it goes along the batch", "use another dimension")
        steps = channels_first(value.shape, dim)
        kept = tuple(1 if place == dim else side for place, side in enumerate(value.shape, 1))
        back = channels_back(kept, dim) if steps else ()
        if kept != call.output_shape:
            back = (*back, f"reshape({', '.join(map(str, call.output_shape))})")
        return MovedBack(cls(), (back,)), [Moved(value, steps) if steps else value], {}

    def float_run(self, layer: Layer) -> Tensor:
        return layer.input.argmax(1, keepdim=True)

    def integer_run(self, layer: Layer) -> Tensor:
        return layer.input.argmax(1, keepdim=True).to(torch.int32)


def argmax_of(graph: Graph, value: str) -> Node | None:
    """The argmax whose result a value is, with moves between or without; None if there is no such one."""
    node = graph.producer(value)
    while node is not None and isinstance(node.operator, Move):
        node = graph.producer(node.inputs[0])
    return node if node is not None and isinstance(node.operator, Argmax) else None


_call = Definition(Argmax)


@functional
def argmax(x: Tensor, x_quantization: Quantization) -> Tensor:
    """Index of the largest of int8 numbers along dimension 1, of equal ones the first. It has no gradient.

    Args:
        x: float32 [N, channels, ...], integers from -128 to 127.

    Returns:
        float32 [N, 1, ...] that holds the indices.

    Raises:
        InputError: x has another dtype, or holds other numbers than these integers.

    >>> argmax(torch.tensor([[1.0, 3.0, 3.0]]), Quantization(0.1, 0))
    tensor([[1.]])
    """
    return _call(Argmax(), [x], [x_quantization])
