"""Embedding: rows of a table by indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.quantization import INDICES, Quantization
from ..arithmetic.tensors import quantize_tensor
from ..errors import InputError
from ..ir.call import Call, Moved, MovedBack
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..library.definition import Definition, Parameters, check_integers, functional
from .move import Move


@dataclass(frozen=True)
class Embedding(Operator):
    """Rows of the table "weight" [rows, channels] by indices: [N, indices] becomes [N, channels, indices].

    On the device indices are int32, and the table has the quantization of the output.

    >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> Layer(Embedding(3), [torch.tensor([[2, 0]])], {"weight": weight}).float_run()
    (tensor([[[5., 1.],
             [6., 2.]]]),)
    """

    name = "embedding"

    rows: int
    #: The row that gets no gradient in training; -1: none.
    padding_idx: int = -1
    #: Whether the gradient of a row is divided by the number of its uses in the batch.
    scale_grad_by_freq: bool = False

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.embedding.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
        names = call.parameters("weight")
        rows, channels = call.tensors[names["weight"]].shape
        operator = cls(rows, call.arguments["padding_idx"], call.arguments["scale_grad_by_freq"])
        indices = call.input("indices")
        count = prod(indices.shape)
        back = ["permute(dims=[0, 2, 1])"]
        if call.output_shape != (count, channels):
            back += Move.reshape(call.output_shape).steps
        as_vector = Moved(indices, Move.reshape((count,)).steps)
        return MovedBack(operator, (tuple(back),)), [indices if len(indices.shape) == 1 else as_vector], names

    def float_run(self, layer: Layer) -> Tensor:
        indices, weight = layer.input.long(), layer.parameters["weight"]
        rows = torch.embedding(weight, indices, self.padding_idx, self.scale_grad_by_freq)
        return rows.transpose(1, 2)

    def observed(self, layer: Layer, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Also the rows that the data do not use.
        return (layer.parameters["weight"],)

    def attributes(self, layer: Layer) -> dict[str, int]:
        return {"rows": self.rows}

    def quantize(self, layer: Layer) -> dict[str, Tensor]:
        weight = layer.parameters["weight"].detach()
        return {"table": quantize_tensor(weight, layer.output_quantization).contiguous()}

    def integer_run(self, layer: Layer) -> Tensor:
        table = layer.tensors["table"]
        return table[layer.input.long().clamp(0, self.rows - 1)].transpose(1, 2)


def _tensors(layer: Layer, table: Tensor) -> dict[str, Tensor]:
    check_integers("embedding: table", table, *layer.output_quantization.bounds)
    return {"table": table.to(layer.output_quantization.torch_dtype).contiguous()}


def _real(layer: Layer, table: Tensor) -> dict[str, Tensor]:
    output = layer.output_quantization
    return {"weight": (table - output.zero_point) * output.scale}


_call = Definition(Embedding, parameters=Parameters(("Tensor table",), tensors=_tensors, real=_real))


@functional
def embedding(x: Tensor, table: Tensor, y_quantization: Quantization) -> Tensor:
    """Rows of an int8 table by indices, as TFLM's GATHER along the first dimension.

    The gradient of the table is that of the float function; indices have none.

    Args:
        x: float32 [N, indices] that holds the numbers of rows.
        table: float32 [rows, channels], integers from -128 to 127.

    Returns:
        float32 [N, channels, indices] that holds int8 numbers.

    Raises:
        InputError: a tensor has another dtype or other dimensions, holds other numbers than these integers,
            or an index is outside of the table.

    >>> embedding(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0], [3.0], [5.0]]), Quantization(0.5, 0))
    tensor([[[5., 1.]]])
    """
    given = [x, table]
    if any(not isinstance(tensor, Tensor) or tensor.dim() != 2 for tensor in given):
        _call.check([x], [INDICES, y_quantization], [table])
        raise InputError(
            f"embedding: x has shape {list(x.shape)} and table {list(table.shape)}; expected [N, indices] "
            "and [rows, channels]"
        )
    if not torch.compiler.is_compiling():
        check_integers("embedding: x", x, 0, len(table) - 1)
    return _call(Embedding(len(table)), [x], [INDICES], y_quantization, [table])
