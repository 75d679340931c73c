"""Products of matrices: with weights, and of two values."""

from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

from ..model import (
    Float32,
    Int8,
    Int16,
    Int32,
    Int64,
    Quantization,
    bias_tensor,
    input_tensor,
    output_tensor,
    run,
    weight_tensor,
)
from .limits import check_requantization, largest_bound
from .options import FUSED, Activation


def fully_connected(
    x: Int8 | Int16,
    weights: Int8,
    bias: Int32 | Int64,
    x_quantization: Quantization,
    weight_scales: Float32,
    y_quantization: Quantization,
    *,
    activation: Activation = "none",
) -> Int8 | Int16:
    """FULLY_CONNECTED: x (N, I), weights (O, I), bias (O,), weight_scales (O,) or (1,) -> (N, O)."""
    if x.shape[1] != weights.shape[1]:
        raise ValueError(f"input {x.shape} and weights {weights.shape} differ in their second dimension")
    check_requantization(weights, bias, x_quantization, weight_scales, y_quantization)
    return run(
        "FULLY_CONNECTED",
        schema.FullyConnectedOptionsT(fusedActivationFunction=FUSED[activation]),
        [
            input_tensor(x, x_quantization),
            weight_tensor(weights, weight_scales, 0),
            bias_tensor(bias, x_quantization, weight_scales),
        ],
        output_tensor((x.shape[0], weights.shape[0]), y_quantization),
    )


def matmul(
    a: Int8,
    b: Int8,
    a_quantization: Quantization,
    b_quantization: Quantization,
    y_quantization: Quantization,
    *,
    transpose_b: bool,
) -> Int8:
    """BATCH_MATMUL: a (B, M, K), b (B, K, N), or (B, N, K) if transposed -> (B, M, N)."""
    multiplier = a_quantization.scale * b_quantization.scale / y_quantization.scale
    if a.shape[2] * 255 * 255 > largest_bound(multiplier):
        raise ValueError(f"TFLM overflows: sums of {a.shape[2]} products, multiplier {multiplier}")
    inputs = [input_tensor(a, a_quantization), input_tensor(b, b_quantization)]
    output = output_tensor((*a.shape[:2], b.shape[1 if transpose_b else 2]), y_quantization)
    return run("BATCH_MATMUL", schema.BatchMatMulOptionsT(adjY=transpose_b), inputs, output)
