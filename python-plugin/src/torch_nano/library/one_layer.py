"""One operator run by nano-core's own kernel: an image of a single layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from torch_nano._native import Model, write_image

from ..arithmetic.layout import Shape, from_device, to_device
from ..arithmetic.quantization import Quantization
from ..ir.description import describe_layer, describe_model, describe_value
from ..ir.layer import Layer
from ..ir.operator import Operator

#: A layer's tensor in a hashable form: name, dtype, bytes.
_FrozenTensor = tuple[str, str, bytes]


def run_native(layer: Layer, output_shapes: Sequence[Shape]) -> list[Tensor]:
    """Runs a layer by nano-core on the CPU; the result is that of :meth:`Layer.integer_run`.

    Args:
        output_shapes: of each output, without batch.

    Raises:
        NanoError: nano-core refuses the layer.
    """
    outputs = one_layer_model(layer, output_shapes).run([to_device(x).numpy() for x in layer.inputs])
    return [from_device(torch.from_numpy(y), shape) for y, shape in zip(outputs, output_shapes, strict=True)]


def one_layer_model(layer: Layer, output_shapes: Sequence[Shape]) -> Model:
    """The model that :func:`run_native` runs; it depends on the shapes of the layer's inputs only."""
    frozen = []
    for name, tensor in layer.tensors.items():
        array = tensor.detach().cpu().numpy()
        frozen.append((name, str(array.dtype), array.tobytes()))
    return _model(
        layer.operator,
        tuple(zip(layer.input_shapes, layer.input_quantizations, strict=True)),
        tuple(zip(output_shapes, layer.output_quantizations, strict=True)),
        tuple(frozen),
    )


@lru_cache(maxsize=64)
def _model(
    operator: Operator,
    inputs: tuple[tuple[Shape, Quantization], ...],
    outputs: tuple[tuple[Shape, Quantization], ...],
    tensors: tuple[_FrozenTensor, ...],
) -> Model:
    layer = Layer(
        operator,
        input_quantizations=[quantization for _, quantization in inputs],
        output_quantizations=[quantization for _, quantization in outputs],
        shapes=[shape for shape, _ in inputs],
    )
    arrays = {name: np.frombuffer(data, dtype) for name, dtype, data in tensors}
    entry = describe_layer(layer, range(len(inputs)), [describe_value(*output) for output in outputs], arrays)
    read = {f"input{index}": describe_value(*value) for index, value in enumerate(inputs)}
    made = {f"output{index}": len(inputs) + index for index in range(len(outputs))}
    return Model(write_image(describe_model(read, [entry], made, name=operator.name)))
