"""One operator run by nano-core's own kernel: an image of a single layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from torch_nano._native import Model, write_image

from .layout import device_shape, from_device, to_device
from .operator import Operator, Quantization, Shape

#: A layer's tensor as something that can be a key: name, dtype, bytes.
_FrozenTensor = tuple[str, str, bytes]


def run_native(
    operator: Operator,
    inputs: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
    input_quantization: Sequence[Quantization],
    output_quantization: Quantization,
    output_shape: Shape,
) -> Tensor:
    """What :meth:`Operator.integer_run` computes, by nano-core on the CPU.

    Args:
        inputs: int8, torch's layout, with batch.
        output_shape: without batch.

    Raises:
        NanoError: nano-core refuses the layer.
    """
    model = one_layer_model(operator, inputs, tensors, input_quantization, output_quantization, output_shape)
    (y,) = model.run([to_device(x).numpy() for x in inputs])
    return from_device(torch.from_numpy(y), output_shape)


def one_layer_model(
    operator: Operator,
    inputs: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
    input_quantization: Sequence[Quantization],
    output_quantization: Quantization,
    output_shape: Shape,
) -> Model:
    """The model that :func:`run_native` runs; of `inputs`, it has the shapes."""
    frozen = []
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().numpy()
        frozen.append((name, str(array.dtype), array.tobytes()))
    shapes = (*(tuple(x.shape[1:]) for x in inputs), output_shape)
    return _model(operator, shapes, (*input_quantization, output_quantization), tuple(frozen))


@lru_cache(maxsize=64)
def _model(
    operator: Operator,
    shapes: tuple[Shape, ...],
    quantizations: tuple[Quantization, ...],
    tensors: tuple[_FrozenTensor, ...],
) -> Model:
    """The model of one layer; `shapes` and `quantizations` of its inputs, then of its output."""
    values = [
        {"shape": device_shape(shape), "scale": quantization.scale, "zero_point": quantization.zero_point}
        for shape, quantization in zip(shapes, quantizations, strict=True)
    ]
    *inputs, output = values
    ids = list(range(len(inputs)))
    layer = {
        "operator": operator.name,
        "inputs": ids,
        "output": output,
        "attributes": operator.attributes(quantizations[-1]),
        "tensors": {name: np.frombuffer(data, dtype) for name, dtype, data in tensors},
    }
    description = {
        "name": operator.name,
        "labels": [],
        "inputs": inputs,
        "layers": [layer],
        "outputs": [len(ids)],
        "head": None,
    }
    return Model(write_image(description))
