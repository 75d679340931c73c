"""Tables of int16 in nano-core against TFLM's: only its int16 softmax has them, two in a row."""

from collections.abc import Callable

import numpy as np
import torch
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)
from torch import Tensor
from torch_nano._native import quantize_multiplier
from torch_nano.arithmetic.fixed_point import apply_multipliers
from torch_nano.arithmetic.quantization import Quantization as OfTorchNano
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import run_native
from torch_nano.ops._interpolation import entries
from torch_nano.ops.table import Table

from .model import Quantization, input_tensor, output_tensor, run

#: What TFLM takes for a softmax of int16.
OUTPUT = Quantization(1 / 32768, 0, "int16")


def interpolate(table: Tensor, x: Tensor) -> Tensor:
    """What nano-core reads in a table, for numbers [rows, columns]; any function's name will do."""
    unit = OfTorchNano(1.0, 0, "int16")
    layer = Layer(
        Table("exp"),
        [x.short()],
        tensors={"table": table},
        input_quantizations=[unit],
        output_quantizations=[unit],
    )
    (plain,), (native,) = layer.integer_run(), run_native(layer, [tuple(x.shape[1:])])
    assert torch.equal(plain, native), "plain torch differs from nano-core"
    return native


def lookups(x: Tensor, scale: float) -> Tensor:
    """Softmax of int16 [rows, classes], as TFLM computes it with our tables."""
    step = np.float32(2) / np.float32(65535)
    both = (float(np.float32(-32768) * step), float(np.float32(32767) * step))
    tenth = np.float32(10) / np.float32(65535)
    exponential = entries(torch.exp, (float(np.float32(-65535) * tenth), 0.0), both)
    unit = np.float32(1) / np.float32(65535)
    reciprocal = entries(lambda x: 1 / (1 + x), (0.0, float(np.float32(65535) * unit)), both)
    below = x.long() - x.amax(1, keepdim=True).long()
    scaled = apply_multipliers(below, [quantize_multiplier(scale / (10 / 65535))])
    powers = interpolate(exponential, (scaled + 32767).clamp(-32768, 32767)).long()
    total = powers.sum(1, keepdim=True)
    # The sum as 1 + u, of 2^30 at least.
    free = 31 - (total.double().log2().floor().long() + 1)
    shifted = ((total << free) + (1 << 13)) >> 14
    scales = interpolate(reciprocal, (shifted - (1 << 15) - (1 << 16)).clamp(-32768, 32767)).long()
    right = 30 - free
    return ((powers * scales + (1 << (right - 1))) >> right).clamp(0, 32767).short()


def test_lookups_equal_tflms(layer_count: int, compared: Callable[[str, int], None]) -> None:
    for seed in range(layer_count):
        rng = np.random.default_rng(seed)
        scale = float(np.float32(2.0 ** rng.uniform(-14, -8)))
        shape = (int(rng.integers(1, 20)), int(rng.choice([2, 3, 10, 100])))
        x = rng.integers(-32768, 32768, shape, np.int16)
        given = input_tensor(x, Quantization(scale, 0, "int16"))
        expected = run("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [given], output_tensor(x.shape, OUTPUT))
        assert np.array_equal(lookups(torch.from_numpy(x), scale).numpy(), expected), f"seed {seed}"
    compared("table_int16", layer_count)
