"""The operators by hand: torch.ops.torch_nano.* and torch_nano.functional."""

import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops.cases import MAKERS, Case, make
from torch import Tensor
from torch_nano import functional
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.errors import InputError
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Own
from torch_nano.library.definition import DEFINITIONS
from torch_nano.ops._channels import ChannelsOperator
from torch_nano.ops._clamp import ClampedOperator
from torch_nano.ops._recurrent import ROLES, RecurrentOperator
from torch_nano.ops.activation import Activation
from torch_nano.ops.argmax import Argmax
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.embedding import Embedding
from torch_nano.ops.layer_norm import LayerNorm
from torch_nano.ops.prelu import Prelu
from torch_nano.ops.table import TableOperator

BY_HAND = [operator for operator in MAKERS if operator in DEFINITIONS]
SEEDS = range(12)
by_hand = pytest.mark.parametrize("operator", BY_HAND, ids=lambda operator: operator.__name__)


def call(case: Case, inputs: Sequence[Tensor], parameters: Sequence[Tensor | None]) -> Tensor:
    definition = DEFINITIONS[type(case.operator)]
    output = case.output_quantization if definition.free_output else None
    return definition(case.operator, inputs, case.input_quantizations, output, parameters)


def learned(case: Case, parameters: Sequence[Tensor | None]) -> list[Tensor]:
    """The parameters that have gradients."""
    count = len(parameters) - DEFINITIONS[type(case.operator)].parameters.constant
    return [parameter for parameter in parameters[:count] if parameter is not None]


def differentiable(case: Case, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs that have gradients: real numbers, not indices."""
    pairs = zip(inputs, case.input_quantizations, strict=True)
    return [x for x, quantization in pairs if not quantization.holds_indices]


def arguments(case: Case) -> tuple[object, ...]:
    """The custom operator's arguments, tensors that ask for gradients among them."""
    definition = DEFINITIONS[type(case.operator)]
    output = case.output_quantization if definition.free_output else None
    inputs = [x.float().requires_grad_() for x in case.inputs]
    parameters = [None if one is None else one.clone() for one in case.integer_parameters()]
    for parameter in learned(case, parameters):
        parameter.requires_grad_()
    return definition.arguments(case.operator, inputs, case.input_quantizations, output, parameters)


@by_hand
def test_the_cpu_and_other_devices_give_the_bytes_of_the_integer_run(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        expected = case.output().float()
        with torch.no_grad():
            y = call(case, [x.float() for x in case.inputs], case.integer_parameters())
            elsewhere = DEFINITIONS[operator].run_torch(*arguments(case))
        assert torch.equal(y, expected), f"seed {seed}: {case.operator}"
        assert torch.equal(elsewhere, expected), f"seed {seed}: {case.operator}"


# An index has no gradient.
@pytest.mark.parametrize(
    "operator", [one for one in BY_HAND if one is not Argmax], ids=lambda operator: operator.__name__
)
def test_gradients_are_those_of_the_float_twin(operator: type[Operator]) -> None:
    for seed in SEEDS:
        case = make(operator, seed)
        inputs = [x.float().requires_grad_() for x in case.inputs]
        parameters = case.integer_parameters()
        leaves = [
            *differentiable(case, inputs),
            *(parameter.requires_grad_() for parameter in learned(case, parameters)),
        ]
        y = call(case, inputs, parameters)
        # Where the integer output is at a bound, the float result may be inside or outside.
        bounds, (low, high) = case.attributes(), case.output_quantization.bounds
        inside = (y > bounds.get("clamp_min", low)) & (y < bounds.get("clamp_max", high))
        if isinstance(case.operator, RecurrentOperator | TableOperator):
            # Its float result differs by more than the rounding; a table of int16 has lines next to a bound.
            exact = twin(case, inputs, parameters).detach() + case.output_quantization.zero_point
            inside &= (exact > low - 0.5) & (exact < high + 0.5)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)) * inside
        gradients = torch.autograd.grad(y, leaves, grad)
        expected = torch.autograd.grad(twin(case, inputs, parameters), leaves, grad.double())
        for gradient, reference in zip(gradients, expected, strict=True):
            # float32 sums of up to a thousand products, against float64; 1 - z has few digits near 1.
            part = 1e-3 if isinstance(case.operator, RecurrentOperator) else 1e-4
            torch.testing.assert_close(
                gradient, reference, rtol=1e-4, atol=part * float(reference.abs().max()) + 1e-9
            )


def twin(case: Case, inputs: Sequence[Tensor], parameters: Sequence[Tensor | None]) -> Tensor:
    """The output in steps of its scale, in float64, without rounding and clamping."""
    operator = case.operator.without_clamp() if isinstance(case.operator, ClampedOperator) else case.operator
    real = [
        (x.double() - q.zero_point) * q.scale for x, q in zip(inputs, case.input_quantizations, strict=True)
    ]
    roles = {}
    if isinstance(operator, LayerNorm):
        given = zip(("weight", "bias"), parameters, strict=True)
        roles = {role: parameter.double() for role, parameter in given if parameter is not None}
    elif isinstance(operator, RecurrentOperator):
        given = zip(ROLES, parameters, strict=True)
        roles = {role: parameter.double() for role, parameter in given if parameter is not None}
    elif isinstance(operator, Embedding):
        (table,) = parameters
        assert table is not None
        roles["weight"] = (
            table.double() - case.output_quantization.zero_point
        ) * case.output_quantization.scale
    elif isinstance(operator, Prelu):
        alpha, scale = parameters
        assert alpha is not None and scale is not None
        roles["weight"] = alpha.double() * scale.double()
    elif parameters:
        weight, bias, scales = parameters
        assert weight is not None and bias is not None and scales is not None
        assert isinstance(operator, ChannelsOperator)
        steps = scales.double()
        roles["weight"] = operator.scale_outputs(weight.double(), steps)
        roles["bias"] = bias.double() * steps * case.input_quantizations[0].scale
    (y,) = Layer(operator, real, roles).float_run()
    return y / case.output_quantization.scale


#: Those whose output can saturate: the entries of an embedding's table are integers of the output.
SATURATING = [each for each in BY_HAND if each.rules == (Own(),) and each is not Embedding]


@pytest.mark.parametrize("operator", SATURATING, ids=lambda operator: operator.__name__)
def test_saturated_outputs_pass_no_gradient(operator: type[Operator]) -> None:
    found = 0
    for seed in range(40):
        case = make(operator, seed)
        inputs = [x.float().requires_grad_() for x in case.inputs]
        y = call(case, inputs, case.integer_parameters())
        exact = twin(case, inputs, case.integer_parameters()) + case.output_quantization.zero_point
        low, high = case.output_quantization.bounds
        outside = (exact > high + 2) | (exact < low - 2)
        found += int(outside.sum())
        for gradient in torch.autograd.grad(y, inputs, outside.float()):
            assert not gradient.any(), f"seed {seed}: {case.operator}"
    assert found > 0


# opcheck itself reads .grad of the copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@by_hand
def test_operators_pass_opcheck(operator: type[Operator]) -> None:
    # Of operators with kernels of int16, that of convolutions is checked, too.
    for seed in (1, 2) if operator is Conv2d else (1,):
        case = make(operator, seed)
        assert seed == 1 or case.output_quantization.dtype == "int16"
        torch.library.opcheck(DEFINITIONS[operator].forward_op, arguments(case))


@by_hand
def test_compiles_in_one_graph(operator: type[Operator]) -> None:
    case = make(operator, 2)
    parameters = case.integer_parameters()

    def gradients(function: object) -> list[Tensor]:
        inputs = [x.float().requires_grad_() for x in case.inputs]
        y = function(*inputs)  # type: ignore[operator]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), inputs)]

    def layer(*inputs: Tensor) -> Tensor:
        return call(case, inputs, parameters)

    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for got, expected in zip(gradients(compiled), gradients(layer), strict=True):
        assert torch.equal(got, expected)


def test_inductor_compiles_a_network_of_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (2, 3, 8, 8), generator=generator).float()
    weight = torch.randint(-127, 128, (4, 3, 3, 3), generator=generator).float()
    dense = torch.randint(-127, 128, (5, 64), generator=generator).float()
    image, hidden = Quantization(0.02, 3), Quantization(0.05, -128)

    def network(x: Tensor) -> Tensor:
        y = functional.conv2d(
            x, weight, None, torch.full((4,), 0.002), image, hidden, padding="same", clamp_low=0.0
        )
        y = functional.max_pool2d(y, hidden, 2)
        y = functional.silu(y, hidden, hidden)
        y = functional.fully_connected(y, dense, None, torch.full((5,), 0.002), hidden, image)
        return functional.softmax(y, image)

    torch.compiler.reset()
    assert torch.equal(torch.compile(network, fullgraph=True)(x), network(x))


def test_functional_transforms_work() -> None:
    case = make(Conv2d, 3)
    x, parameters = case.inputs[0].float(), case.integer_parameters()

    def loss(x: Tensor) -> Tensor:
        return call(case, [x], parameters).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert torch.equal(torch.func.grad(loss)(x), gradient)
    per_sample = torch.vmap(torch.func.grad(loss))(x[:, None])
    assert torch.equal(per_sample[:, 0], gradient)


def test_autocast_does_not_round_the_integers() -> None:
    case = make(Conv2d, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = call(case, [x.float() for x in case.inputs], case.integer_parameters())
    assert torch.equal(y, case.output().float())


@by_hand
def test_a_double_backward_is_refused(operator: type[Operator]) -> None:
    case = make(operator, 1)
    inputs = [x.float().requires_grad_() for x in case.inputs]
    y = call(case, inputs, case.integer_parameters())
    (first, *_) = torch.autograd.grad((y * y).sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no double backward"):
        torch.autograd.grad(first.sum(), inputs)


def test_inputs_that_are_not_int8_are_refused() -> None:
    x, quantization = torch.zeros(1, 2), Quantization(0.1, 0)
    for wrong in (x + 0.5, x + 128, x - 129, x + torch.nan):
        with pytest.raises(InputError, match=r"requantize: x holds .* expected integers from -128 to 127"):
            functional.requantize(wrong, quantization, quantization)
    with pytest.raises(InputError, match=r"x is torch.int8; expected float32"):
        functional.requantize(x.to(torch.int8), quantization, quantization)


def test_weights_that_are_not_int8_are_refused() -> None:
    x, weight, scales, quantization = (
        torch.zeros(1, 2),
        torch.zeros(3, 2),
        torch.ones(3),
        Quantization(0.1, 0),
    )
    with pytest.raises(
        InputError, match=r"fully_connected: weight holds -128.0; expected integers from -127 to 127"
    ):
        functional.fully_connected(x, weight - 128, None, scales, quantization, quantization)
    with pytest.raises(InputError, match=r"fully_connected: bias holds 0.5"):
        functional.fully_connected(x, weight, scales / 2, scales, quantization, quantization)
    learned = scales.clone().requires_grad_()
    with pytest.raises(InputError, match=r"weight_scales has no gradient; detach it"):
        y = functional.fully_connected(x, weight, None, learned, quantization, quantization)
        torch.autograd.grad(y.sum(), learned)


def test_shapes_that_do_not_fit_are_refused() -> None:
    quantization, scales = Quantization(0.1, 0), torch.ones(4)
    with pytest.raises(InputError, match=r"x has shape \(2, 3\); expected \[N, channels, height, width\] or"):
        functional.max_pool2d(torch.zeros(2, 3), quantization, 2)
    with pytest.raises(InputError, match=r"conv2d: the weight's window is \(3, 3\), the kernel \(1, 3\)"):
        functional.conv2d(
            torch.zeros(2, 3, 8), torch.zeros(4, 3, 3, 3), None, scales, quantization, quantization
        )


def test_clamp_is_the_relu_family_by_hand() -> None:
    case = make(Activation, 1)
    assert isinstance(case.operator, Activation)
    bounds = {"min": case.operator.low, "max": case.operator.high}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    x, quantization = case.inputs[0].float(), case.input_quantizations[0]
    assert torch.equal(
        functional.clamp(x, quantization, case.output_quantization, **given), case.output().float()
    )


def test_the_cpu_runs_nano_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Tensor:
        raise RuntimeError("nano-core was called")

    monkeypatch.setattr("torch_nano.library.definition.run_native", refuse)
    quantization = Quantization(0.1, 0)
    with pytest.raises(RuntimeError, match="nano-core was called"):
        functional.requantize(torch.zeros(1, 2), quantization, quantization)


def test_an_empty_batch_stays_empty() -> None:
    quantization = Quantization(0.1, 0)
    assert functional.silu(torch.zeros(0, 3, 4), quantization, quantization).shape == (0, 3, 4)


def test_shapes_of_an_addition_must_agree() -> None:
    quantization = Quantization(0.1, 0)
    with pytest.raises(InputError, match=r"\(1, 2\) and \(1, 3\) differ"):
        functional.add(torch.zeros(1, 2), torch.zeros(1, 3), quantization, quantization, quantization)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (None, "move: steps is None; expected a list of texts"),
        ("flip(dims=[1])", "move: steps is 'flip(dims=[1])'; expected a list of texts"),
        ([3], "move: steps is [3]; expected a list of texts"),
        (
            ["index_select(dim=1, index=[7])"],
            "index_select(dim=1, index=[7]) does not take (3,) per sample: ",
        ),
        (["select.int(dim=1, index=7)"], "select.int(dim=1, index=7) does not take (3,) per sample: "),
        (["index.Tensor(indices=[None, [9]])"], "does not take (3,) per sample: index 9 is out of bounds"),
        (["pad(pad=[1, 0], value=1)"], "move: it pads with 1; nano-core pads with zeros"),
        (["pad(pad=[1, 0], value=-2)"], "move: it pads with -2; nano-core pads with zeros"),
        (["pad(pad=[1, 0], value=0.5)"], "move: it pads with 0.5; nano-core pads with zeros"),
        (["index_select(dim=0, index=[0, 0, 0])"], "move: it mixes the samples of a batch"),
    ],
)
def test_steps_that_move_no_data_are_refused(steps: Any, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        functional.move(torch.tensor([[1.0, 2.0, 3.0]]), Quantization(0.5, 0), steps)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("move", (1, None, []), "move: the quantization of x is None; expected a Quantization"),
        ("move", (None, 1, []), "move: x is None; expected a tensor [N, ...]"),
        ("sigmoid", (1, 1, None), "table: the quantization of y is None; expected a Quantization"),
        ("add", (1, 1, 1, 0.5, 1), "add: the quantization of b is 0.5; expected a Quantization"),
        ("add", (1, None, 1, 1, 1), "add: b is None; expected a tensor [N, ...]"),
        ("softmax", (1, "a"), "softmax: the quantization of x is 'a'; expected a Quantization"),
        ("softmax", (0, 1), "softmax: x is a tensor without dimensions; expected a tensor [N, ...]"),
    ],
)
def test_arguments_of_other_kinds_are_refused(name: str, arguments: tuple[Any, ...], problem: str) -> None:
    """In `arguments`, 1 stands for a right argument, and 0 for a tensor without dimensions."""
    count = 2 if name == "add" else 1
    right = [*([torch.zeros(2, 3)] * count), *([Quantization(0.5, 0)] * 3)]
    given = [
        right[i] if item == 1 else torch.tensor(1.0) if item == 0 else item
        for i, item in enumerate(arguments)
    ]
    with pytest.raises(InputError, match=re.escape(problem)):
        getattr(functional, name)(*given)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"stride": 2, "output_padding": 2},
            "the output padding is 2; expected 0 or more, below the stride, 2",
        ),
        ({"output_padding": -1}, "the output padding is -1"),
        ({"padding": (0, 3)}, "the padding cuts off 6 of 5 rows or columns"),
    ],
)
def test_paddings_that_a_transposed_convolution_cannot_have(arguments: dict[str, Any], problem: str) -> None:
    x, weight, unit = torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3), Quantization(1.0, 0)
    with pytest.raises(InputError, match=re.escape(problem)):
        functional.conv_transpose2d(x, weight, None, torch.ones(1), unit, unit, **arguments)


# torch says that it pads an even kernel unevenly.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("padding", [1, (1, 2), (1, 0, 2, 1), "same", "valid"], ids=str)
def test_conv2d_takes_padding_as_torch_does_and_by_side(padding: int | tuple[int, ...] | str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-20, 20, (2, 3, 6, 7), generator=generator).float()
    weight = torch.randint(-3, 4, (4, 3, 3, 2), generator=generator).float()
    unit = Quantization(1.0, 0)
    y = functional.conv2d(x, weight, None, torch.full((4,), 0.25), unit, unit, padding=padding)
    if isinstance(padding, tuple) and len(padding) == 4:
        top, bottom, left, right = padding
        sums = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (left, right, top, bottom)), weight)
    else:
        sums = torch.nn.functional.conv2d(x, weight, padding=padding)
    assert y.shape == sums.shape
    # 1/4 is exact; TFLM rounds twice, so halves may go up twice: at most 3/4 away.
    assert float((y - (sums / 4).clamp(-128, 127)).abs().max()) <= 0.75


def test_the_functions_need_no_import_of_their_own() -> None:
    program = "import torch_nano as tn; assert callable(tn.functional.sigmoid)"
    subprocess.run([sys.executable, "-c", program], check=True)
