"""The integers of every operator: plain torch equals nano-core, and both are near the float run."""

from dataclasses import replace

import pytest
import torch
from torch_nano.ir.operator import Operator
from torch_nano.library.one_layer import run_native
from torch_nano.ops._recurrent import RecurrentOperator
from torch_nano.ops.lstm import Lstm
from torch_nano.ops.table import TableOperator

from .cases import MAKERS, make

SEEDS = range(60)


@pytest.mark.parametrize("operator", MAKERS, ids=lambda operator: operator.__name__)
def test_plain_torch_equals_nano_core(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        plain = case.integer_run()
        native = run_native(case, [tuple(y.shape[1:]) for y in plain])
        for y, of_core, quantization in zip(plain, native, case.output_quantizations, strict=True):
            assert y.dtype == quantization.torch_dtype
            differing = int((y != of_core).sum())
            assert differing == 0, f"seed {seed}: {differing} of {y.numel()} differ: {case.operator}"


# The error of an LSTM grows from step to step: test_lstm measures it.
@pytest.mark.parametrize(
    "operator",
    [one for one in MAKERS if not issubclass(one, Lstm | RecurrentOperator)],
    ids=lambda operator: operator.__name__,
)
def test_integers_are_near_the_float_run(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        output = case.output_quantization
        if isinstance(case.operator, TableOperator) and output.dtype == "int16":
            continue  # test_interpolation measures its error.
        real = (case.real_output() / output.scale + output.zero_point).clamp(*output.bounds)
        # Half a step of rounding for the output, and up to one more where nano-core rounds twice. A weight is
        # off by at most half its scale, which adds up to s_w / 2 * sum |x|; the bias by s_x * s_w / 2. So
        # is a slope.
        allowed = torch.full_like(real, 1.5)
        if "weights" in case.tensors:
            scales = case.tensors["weight_scales"]
            largest = case.differences()[0].abs().amax() * case.tensors["weights"][0].numel()
            magnitude = (largest + 1) * case.input_quantization.scale
            error = scales * magnitude / (2 * output.scale)
            allowed = allowed + error.reshape(-1, *[1] * (real.dim() - 2))
        if "alpha" in case.tensors:
            largest = case.differences()[0].abs().amax() * case.input_quantization.scale
            allowed = allowed + case.tensors["alpha_scale"] * largest / (2 * output.scale)
        worst = float(((case.output().float() - real).abs() - allowed).max())
        assert worst <= 0, f"seed {seed}: {worst} steps beyond the bound: {case.operator}"


@pytest.mark.parametrize("operator", MAKERS, ids=lambda operator: operator.__name__)
def test_no_samples_give_no_samples(operator: type[Operator]) -> None:
    """Loading a saved model runs it so, to check its shapes."""
    for seed in SEEDS[:5]:
        case = make(operator, seed)
        shapes = [tuple(y.shape[1:]) for y in case.integer_run()]
        empty = replace(case, inputs=[x[:0] for x in case.inputs])
        assert [tuple(y.shape) for y in empty.integer_run()] == [(0, *shape) for shape in shapes], seed
