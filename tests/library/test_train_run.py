"""The operators in training: the device's numbers, the float twin's gradient, zero where int8 saturates."""

from dataclasses import replace
from itertools import compress

import pytest
import torch
from ops.cases import MAKERS, Case, make
from torch import Tensor
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.errors import InputError, NonFiniteError
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.straight_through import straight_through
from torch_nano.library import train_run
from torch_nano.library.train_run import Convolution, train_channels, train_input
from torch_nano.ops._channels import ChannelsOperator
from torch_nano.ops._clamp import ClampedOperator
from torch_nano.ops._recurrent import RecurrentOperator
from torch_nano.ops.activation import Activation
from torch_nano.ops.add import Add
from torch_nano.ops.argmax import Argmax
from torch_nano.ops.average_pool2d import AveragePool2d
from torch_nano.ops.embedding import Embedding
from torch_nano.ops.layer_norm import LayerNorm
from torch_nano.ops.lstm import Lstm
from torch_nano.ops.mul import Mul
from torch_nano.ops.prelu import Prelu
from torch_nano.ops.requantize import Requantize
from torch_nano.ops.softmax import Softmax
from torch_nano.ops.table import Table, TableOperator

SEEDS = range(16)
every = pytest.mark.parametrize("operator", MAKERS, ids=lambda operator: operator.__name__)


def differences(case: Case) -> list[Tensor]:
    """The inputs as training has them: float32 without their zero point, asking for gradients."""
    return [x.requires_grad_() for x in case.differences()]


def learned(case: Case) -> dict[str, Tensor]:
    return {role: tensor.clone().requires_grad_() for role, tensor in case.parameters.items()}


def run(case: Case, inputs: list[Tensor], parameters: dict[str, Tensor]) -> Tensor:
    (y,) = run_all(case, inputs, parameters)
    return y


def run_all(case: Case, inputs: list[Tensor], parameters: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return replace(case, inputs=inputs, parameters=parameters).train_run()


def rounded_parameters(case: Case) -> dict[str, Tensor]:
    """The parameters that the integers stand for, float64."""
    if isinstance(case.operator, Embedding | LayerNorm | Lstm | Prelu | RecurrentOperator):
        return {role: tensor.double().requires_grad_() for role, tensor in case.parameters.items()}
    if not isinstance(case.operator, ChannelsOperator):
        return {}
    weight, bias, scales = case.integer_parameters()
    assert weight is not None and bias is not None and scales is not None
    steps = scales.double()
    real = case.operator.scale_outputs(weight.double(), steps)
    like = case.parameters["weight"]
    roles = {"weight": real.reshape(like.shape).requires_grad_()}
    if "bias" in case.parameters:
        roles["bias"] = (bias.double() * steps * case.input_quantization.scale).requires_grad_()
    return roles


@every
def test_the_numbers_are_those_of_the_integer_run(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        made = run_all(case, differences(case), learned(case))
        for y, integers, output in zip(made, case.integer_run(), case.output_quantizations, strict=True):
            expected = integers.to(y.dtype) - output.zero_point
            # Also the signs of zeros.
            bits = torch.int64 if y.dtype == torch.float64 else torch.int32
            assert torch.equal(y.detach().view(bits), expected.view(bits)), f"seed {seed}: {case.operator}"


def test_a_mean_just_below_zero_is_zero_to_the_bit() -> None:
    unit, x = Quantization(1.0, 0), torch.tensor([[[[-1.0, 0.0, 0.0]]]])
    layer = Layer(AveragePool2d(kernel=(1, 3)), [x], input_quantizations=[unit], output_quantizations=[unit])
    (y,) = layer.train_run()
    assert y.view(torch.int32).tolist() == [[[[0]]]]


# An index has no gradient.
@pytest.mark.parametrize(
    "operator", [one for one in MAKERS if one is not Argmax], ids=lambda operator: operator.__name__
)
def test_gradients_are_those_of_the_float_twin_away_from_clipping(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        inputs, parameters = differences(case), learned(case)
        made = run_all(case, inputs, parameters)
        bounds, generator = case.attributes(), torch.Generator().manual_seed(seed)
        grads = []
        quantized = zip(made, case.real_outputs(), case.output_quantizations, strict=True)
        for y, real, output in quantized:
            q, (low, high) = y.detach() + output.zero_point, output.bounds
            inside = (q > bounds.get("clamp_min", low)) & (q < bounds.get("clamp_max", high))
            if isinstance(case.operator, Lstm | Prelu | RecurrentOperator | TableOperator):
                # Its float result differs by more than the rounding, in a table of int16 next to a bound.
                steps = real.detach() / output.scale + output.zero_point
                inside &= (steps > low - 0.5) & (steps < high + 0.5)
            grads.append(torch.randn(y.shape, generator=generator) * inside)
        # Indices have no gradient.
        real_numbers = [not quantization.holds_indices for quantization in case.input_quantizations]
        gradients = torch.autograd.grad(made, [*compress(inputs, real_numbers), *parameters.values()], grads)
        leaves = [x.detach().double().requires_grad_() for x in inputs]
        real_inputs = replace(case, inputs=leaves).real_inputs()
        rounded = rounded_parameters(case)
        bare = case.operator.without_clamp() if isinstance(case.operator, ClampedOperator) else case.operator
        twins = [
            y / output.scale
            for y, output in zip(
                Layer(bare, real_inputs, rounded).float_run(), case.output_quantizations, strict=True
            )
        ]
        expected = torch.autograd.grad(
            twins,
            [*compress(leaves, real_numbers), *(rounded[role] for role in parameters)],
            [grad.double() for grad in grads],
        )
        for gradient, reference in zip(gradients, expected, strict=True):
            # float32 sums of up to a thousand products, against float64; 1 - z has few digits near 1.
            part = 1e-3 if isinstance(case.operator, RecurrentOperator) else 1e-5
            torch.testing.assert_close(
                gradient.double(), reference, rtol=1e-4, atol=part * float(reference.abs().max()) + 1e-9
            )


@pytest.mark.parametrize("operator", [Table, Activation])
def test_tables_have_the_gradient_of_any_operator(operator: type[Operator]) -> None:
    for seed in range(40):
        case = make(operator, seed)
        (x,), (leaf,) = differences(case), differences(case)
        y = run(case, [x], {})
        (reference,) = straight_through(replace(case, inputs=[leaf]))
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(y, reference)
        (gradient,) = torch.autograd.grad(y, x, grad)
        (expected,) = torch.autograd.grad(reference, leaf, grad)
        # float32: the table's slope is rounded once more.
        torch.testing.assert_close(
            gradient, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()), msg=f"seed {seed}"
        )


def layer(**options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and gradients of ``y = w x`` for x = -4 to 5, w = 1, output scale 1 and zero point 125."""
    x = torch.arange(-4.0, 6.0).reshape(10, 1, 1, 1).requires_grad_()
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    unit = Quantization(1.0, 0)
    y = train_channels(x, weight, None, Convolution(), unit, Quantization(1.0, 125), **options)  # type: ignore[arg-type]
    y.sum().backward()
    assert x.grad is not None and weight.grad is not None
    return y.detach().flatten(), x.grad.flatten(), weight.grad.flatten()


def test_the_mask_is_that_by_hand() -> None:
    """int8 ends at 127, two steps above the zero point: from there on nothing passes."""
    y, x_grad, weight_grad = layer()
    assert y.tolist() == [-4, -3, -2, -1, 0, 1, 2, 2, 2, 2]
    # 1 is 127 steps of 1/127, whose float32 is not quite that.
    assert x_grad.tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], abs=1e-6)
    assert weight_grad.tolist() == [-4 - 3 - 2 - 1 + 0 + 1]


def test_the_mask_of_a_fused_activation_is_that_by_hand() -> None:
    y, x_grad, weight_grad = layer(clamp=(0.0, 1.0))
    assert y.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert not x_grad.any() and not weight_grad.any()
    y, x_grad, weight_grad = layer(clamp=(-2.5, None))
    # -2.5 steps is -3, halves away from zero; the mask is of what is strictly inside.
    assert y.tolist() == [-3, -3, -2, -1, 0, 1, 2, 2, 2, 2]
    assert x_grad.tolist() == pytest.approx([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], abs=1e-6)
    assert weight_grad.tolist() == [-2 - 1 + 0 + 1]


def test_the_mask_of_an_addition_is_that_by_hand() -> None:
    a = torch.tensor([[-100.0, 0.0, 60.0, 100.0]], requires_grad=True)
    b = torch.tensor([[-100.0, 3.0, 67.0, 100.0]], requires_grad=True)
    unit, double = Quantization(1.0, 0), Quantization(0.5, 0)
    (y,) = Layer(Add(), [a, b], input_quantizations=[unit, double], output_quantizations=[unit]).train_run()
    assert y.tolist() == [[-128, 2, 94, 127]]
    y.sum().backward()
    # a in steps of the output, b in halves of them.
    assert a.grad is not None and a.grad.tolist() == [[0, 1, 1, 0]]
    assert b.grad is not None and b.grad.tolist() == [[0, 0.5, 0.5, 0]]


def test_the_mask_of_the_input_is_that_by_hand() -> None:
    x = torch.tensor([-200.0, -1.26, -1.25, 0.3, 200.0], requires_grad=True)
    y = train_input(x, Quantization(0.5, 100))
    # Halves away from zero; the range is -228 to 27 steps.
    assert y.tolist() == [-228, -3, -3, 1, 27]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 2, 2, 2, 0]


# opcheck itself reads .grad of the copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("bias", "dtype"), [(True, "int8"), (False, "int8"), (True, "int16")])
def test_layers_with_weights_pass_opcheck(bias: bool, dtype: str, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-90, 90, (2, 4, 6, 5), generator=generator).float()
    weight = torch.randn(6, 2, 3, 2, generator=generator)
    x, weight = (tensor.contiguous(memory_format=layout).requires_grad_() for tensor in (x, weight))
    biases = torch.randn(6, generator=generator).requires_grad_() if bias else None
    convolution = Convolution(stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2)
    quantizations = (0.02, 5, 0.1, -7) if dtype == "int8" else (0.02, 0, 0.001, 0)
    arguments = (x, weight, biases, *map(list, convolution[:3]), 2, *quantizations, dtype, 0.0, None)
    torch.library.opcheck(torch.ops.torch_nano.train_channels.default, arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_other_operators_pass_opcheck() -> None:
    ops = torch.ops.torch_nano
    image = torch.randint(-9, 9, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0)).float()
    last = image.contiguous(memory_format=torch.channels_last)
    for x in (image, last):
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        torch.library.opcheck(ops.train_input.default, (x, 0.5, 3, None, None))
        scales = (0.5, 1, 0.25, 2, 0.5, -3)
        torch.library.opcheck(ops.train_pairs.default, (*leaves, Add(clamp_low=0.0).text, *scales))
        wide = [leaves[0], leaves[1].detach().amax((2, 3), keepdim=True).requires_grad_()]
        torch.library.opcheck(ops.train_pairs.default, (*wide, Mul().text, *scales))
        torch.library.opcheck(ops.train_table.default, (leaves[0], Table("hardswish").text, 0.5, 1, 0.25, -2))
        norm = {"weight": torch.ones(x.shape[1]), "bias": torch.zeros(x.shape[1])}
        for operator, parameters in ((Softmax(), {}), (Requantize(), {}), (LayerNorm(), norm)):
            given = ([x], list(parameters.values()), list(parameters), operator.text)
            torch.library.opcheck(ops.train_exact.default, (*given, [0.05, 1 / 256], [1, -128], ["int8"] * 2))


def test_what_is_saved_for_the_first_layer_needs_no_gradient_of_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = []
    original = torch.ops.aten.convolution_backward

    def watched(*arguments: object) -> object:
        needed.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(train_run.torch.ops.aten, "convolution_backward", watched)
    x, weight = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1, requires_grad=True)
    unit = Quantization(1.0, 0)
    train_channels(x, weight, None, Convolution(), unit, unit).sum().backward()
    assert [list(which) for which in needed] == [[False, True, False]]  # type: ignore[call-overload]


def test_inputs_that_are_not_finite_are_refused() -> None:
    unit = Quantization(1.0, 0)
    with pytest.raises(InputError, match=r"NaN or infinity in samples \[1\] of 2"):
        train_input(torch.tensor([[0.0], [torch.nan]]), unit)
    weight = torch.tensor([[[[torch.inf]]], [[[1.0]]]])
    with pytest.raises(NonFiniteError, match="weight holds NaN or infinity in output channels 0"):
        train_channels(torch.ones(1, 1, 2, 2), weight, None, Convolution(), unit, unit)


def test_a_changed_precision_of_onednn_is_put_back() -> None:
    """Where a processor has bfloat16, oneDNN may be told to round float32 to it: not in exact sums."""
    seen = []
    original = train_run.F.conv2d
    backend: object = torch.backends.mkldnn.conv  # type: ignore[attr-defined]

    def watched(*arguments: object, **options: object) -> Tensor:
        seen.append(backend.fp32_precision)  # type: ignore[attr-defined]
        return original(*arguments, **options)  # type: ignore[arg-type]

    before = backend.fp32_precision  # type: ignore[attr-defined]
    try:
        backend.fp32_precision = "bf16"  # type: ignore[attr-defined]
        train_run.F.conv2d = watched
        layer()
        after = backend.fp32_precision  # type: ignore[attr-defined]
    finally:
        train_run.F.conv2d = original
        backend.fp32_precision = before  # type: ignore[attr-defined]
    assert seen == ["ieee"] and after == "bf16"
