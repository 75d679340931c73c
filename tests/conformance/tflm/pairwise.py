"""Elementwise operators of two inputs."""

from typing import Protocol

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import Int8, Quantization, input_tensor, output_tensor, run
from .limits import largest_bound
from .options import FUSED, Activation


class PairwiseOracle(Protocol):
    """An elementwise operator of a and b, of one rank, which broadcasts along axes of length 1."""

    def __call__(
        self,
        a: Int8,
        b: Int8,
        a_quantization: Quantization,
        b_quantization: Quantization,
        y_quantization: Quantization,
        *,
        activation: Activation = "none",
    ) -> Int8: ...


def add(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """ADD."""
    _check_sum(a_quantization, b_quantization, y_quantization)
    options = schema.AddOptionsT(fusedActivationFunction=FUSED[activation])
    return _pairwise("ADD", options, a, b, a_quantization, b_quantization, y_quantization)


def sub(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """SUB: a - b."""
    _check_sum(a_quantization, b_quantization, y_quantization)
    options = schema.SubOptionsT(fusedActivationFunction=FUSED[activation])
    return _pairwise("SUB", options, a, b, a_quantization, b_quantization, y_quantization)


def mul(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8:
    """MUL."""
    multiplier = a_quantization.scale * b_quantization.scale / y_quantization.scale
    largest = 255 * 255 if y_quantization.dtype == "int8" else 2**30
    if largest_bound(multiplier) < largest:
        raise ValueError(f"TFLM overflows: multiplier {multiplier}")
    options = schema.MulOptionsT(fusedActivationFunction=FUSED[activation])
    return _pairwise("MUL", options, a, b, a_quantization, b_quantization, y_quantization)


def _check_sum(a: Quantization, b: Quantization, y: Quantization) -> None:
    raise_ = 20 if y.dtype == "int8" else 15
    if 2 * max(a.scale, b.scale) / (2**raise_ * y.scale) >= 1:
        raise ValueError(f"TFLM aborts: output scale {y.scale} is too small for the inputs' scales")


def _pairwise(
    operator: str,
    options: object,
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
) -> Int8:
    if a.ndim != b.ndim:
        raise ValueError(f"ranks differ: {a.shape} and {b.shape}")
    output = output_tensor(np.broadcast_shapes(a.shape, b.shape), y_quantization)
    inputs = [input_tensor(a, a_quantization), input_tensor(b, b_quantization)]
    return run(operator, options, inputs, output)
