"""Operators that select by the numbers of a tensor."""

from dataclasses import replace

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Int32, Quantization, input_tensor, numbers_tensor, output_tensor, run

INDEX = Quantization(1.0, 0, "int32")
"""The quantization of indices."""


def argmax(x: Int8, quantization: Quantization) -> Int32:
    """ARG_MAX over the last dimension: int32 indices of x (..., C), of equal ones the first."""
    options = schema.ArgMaxOptionsT(outputType=schema.TensorType.INT32)
    inputs = [input_tensor(x, quantization), numbers_tensor([x.ndim - 1])]
    return run("ARG_MAX", options, inputs, output_tensor(x.shape[:-1], INDEX)).astype(np.int32)


def gather(table: Int8, x: Int32, quantization: Quantization) -> Int8:
    """GATHER along the first dimension: the rows x (N,) of a table (rows, C)."""
    options = schema.GatherOptionsT(axis=0)
    rows = output_tensor(table.shape, quantization)
    inputs = [replace(rows, constant=table), input_tensor(x, INDEX)]
    return run("GATHER", options, inputs, output_tensor((len(x), table.shape[1]), quantization))
