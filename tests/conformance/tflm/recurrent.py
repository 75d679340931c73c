"""Recurrent layers."""

import math

import numpy as np
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import (
    Float32,
    Int8,
    Int32,
    Quantization,
    bias_tensor,
    input_tensor,
    output_tensor,
    run,
    state_tensor,
    weight_tensor,
)
from .limits import check_requantization, largest_bound


def lstm(
    x: Int8,
    weights: Int8,
    recurrent_weights: Int8,
    bias: Int32,
    x_quantization: Quantization,
    weight_scales: Float32,
    recurrent_weight_scales: Float32,
    y_quantization: Quantization,
    cell_quantization: Quantization,
) -> Int8:
    """UNIDIRECTIONAL_SEQUENCE_LSTM from states of zero: x (1, T, F) -> (1, T, H).

    Of the gates in torch's order, input, forget, cell, output: weights (4, H, F), recurrent_weights (4, H,
    H), bias (4, H), and a scale per gate, (4,) each. The hidden state has `y_quantization`, the cell int16
    with a scale that is a power of two.
    """
    _check_lstm(weights, bias, x_quantization, weight_scales, cell_quantization)
    zeros = np.zeros_like(bias)
    _check_lstm(recurrent_weights, zeros, y_quantization, recurrent_weight_scales, cell_quantization)
    if largest_bound(2.0**-30 / min(y_quantization.scale, cell_quantization.scale)) < 2**30:
        raise ValueError(f"TFLM overflows: scales {y_quantization.scale} and {cell_quantization.scale}")
    units = bias.shape[1]
    biases = [
        bias_tensor(one, x_quantization, scale[None]) for one, scale in zip(bias, weight_scales, strict=True)
    ]
    inputs = [
        input_tensor(x, x_quantization),
        *(weight_tensor(one, scale[None], 0) for one, scale in zip(weights, weight_scales, strict=True)),
        *(
            weight_tensor(one, scale[None], 0)
            for one, scale in zip(recurrent_weights, recurrent_weight_scales, strict=True)
        ),
        *[None] * 3,
        *biases,
        *[None] * 2,
        state_tensor((1, units), y_quantization),
        state_tensor((1, units), cell_quantization),
        *[None] * 4,
    ]
    options = schema.UnidirectionalSequenceLSTMOptionsT(
        fusedActivationFunction=schema.ActivationFunctionType.TANH
    )
    output = output_tensor((*x.shape[:2], units), y_quantization)
    return run("UNIDIRECTIONAL_SEQUENCE_LSTM", options, inputs, output)


def _check_lstm(
    weights: Int8, bias: Int32, x_quantization: Quantization, scales: Float32, cell_quantization: Quantization
) -> None:
    if cell_quantization.dtype != "int16" or math.frexp(cell_quantization.scale)[0] != 0.5:
        raise ValueError(f"the cell is int16 with a power of two as its scale, got {cell_quantization}")
    # Sums are requantized to steps of 2^-12.
    for gate, gate_bias, scale in zip(weights, bias, scales[:, None], strict=True):
        check_requantization(gate, gate_bias, x_quantization, scale, Quantization(2.0**-12, 0))
