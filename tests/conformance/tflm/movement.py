"""Operators that only move data."""

from collections.abc import Sequence

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Quantization, input_tensor, numbers_tensor, output_tensor, run
from .options import FUSED, Pair


def concat(inputs: Sequence[Int8], quantization: Quantization, axis: int) -> Int8:
    """CONCATENATION along a dimension, in and out of one quantization."""
    shape = [*inputs[0].shape]
    shape[axis] = sum(x.shape[axis] for x in inputs)
    options = schema.ConcatenationOptionsT(axis=axis, fusedActivationFunction=FUSED["none"])
    tensors = [input_tensor(x, quantization) for x in inputs]
    return run("CONCATENATION", options, tensors, output_tensor(tuple(shape), quantization))


def pad(x: Int8, quantization: Quantization, padding: Sequence[Pair]) -> Int8:
    """PAD with real zeros: before and after along each dimension of x."""
    shape = tuple(size + before + after for size, (before, after) in zip(x.shape, padding, strict=True))
    inputs = [input_tensor(x, quantization), numbers_tensor(np.array(padding, np.int32))]
    return run("PAD", schema.PadOptionsT(), inputs, output_tensor(shape, quantization))


def transpose(x: Int8, quantization: Quantization, permutation: Sequence[int]) -> Int8:
    """TRANSPOSE: dimension i of the output is dimension `permutation[i]` of x."""
    shape = tuple(x.shape[dimension] for dimension in permutation)
    inputs = [input_tensor(x, quantization), numbers_tensor(permutation)]
    return run("TRANSPOSE", schema.TransposeOptionsT(), inputs, output_tensor(shape, quantization))


def strided_slice(
    x: Int8, quantization: Quantization, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]
) -> Int8:
    """STRIDED_SLICE with strides above 0: every `strides[i]`th element of dimension i from begin[i] on."""
    shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, strides, strict=True))
    inputs = [input_tensor(x, quantization), *map(numbers_tensor, (begin, end, strides))]
    return run("STRIDED_SLICE", schema.StridedSliceOptionsT(), inputs, output_tensor(shape, quantization))


def split(x: Int8, quantization: Quantization, axis: int, parts: int, index: int) -> Int8:
    """SPLIT along an axis into equal parts: the one at `index`."""
    shape = tuple(size // parts if i == axis else size for i, size in enumerate(x.shape))
    inputs = [numbers_tensor([axis]), input_tensor(x, quantization)]
    options, output = schema.SplitOptionsT(numSplits=parts), output_tensor(shape, quantization)
    return run("SPLIT", options, inputs, output, outputs=parts, wanted=index)


def resize_nearest(x: Int8, quantization: Quantization, size: Pair) -> Int8:
    """RESIZE_NEAREST_NEIGHBOR of (N, H, W, C) to another height and width, from the upper left corners."""
    shape = (x.shape[0], *size, x.shape[3])
    inputs, options = (
        [input_tensor(x, quantization), numbers_tensor(size)],
        schema.ResizeNearestNeighborOptionsT(),
    )
    return run("RESIZE_NEAREST_NEIGHBOR", options, inputs, output_tensor(shape, quantization))
