"""Calls that are several layers are captured as their layers; calls that compute nothing vanish."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, fx, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.compositions import COMPOSITIONS
from torch_nano.capture.expansion import copy_of, expand
from torch_nano.capture.passes import optimize
from torch_nano.capture.program import batch_of, export
from torch_nano.capture.vanishing import drop_unread

Function = Callable[[Tensor], Tensor]
SERIES, IMAGE = (4, 13), (4, 9, 12)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def sample(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))


def operators(module: nn.Module, x: Tensor) -> list[str]:
    """The layers of the device, without moves."""
    graph = optimize(capture(module, x))
    with torch.no_grad():
        # float32 operations in another order.
        torch.testing.assert_close(graph.float_run(x)[0], module(x), rtol=1e-5, atol=1e-5)
    return [type(node.operator).__name__ for node in graph.nodes if type(node.operator).__name__ != "Move"]


MASK = torch.tensor([True, False, False, True])[:, None]
RAMP = torch.arange(1.0, 5)[:, None]
VARIANCE = ["AveragePool2d", "Sub", "Table", "Conv2d"]
#: In int16 from the squares on.
DEVIATION = ["AveragePool2d", "Sub", "Requantize", "Table", "Conv2d", "Table", "Requantize"]
#: A module, its input, its layers.
LAYERS: list[tuple[Function | nn.Module, tuple[int, ...], list[str]]] = [
    (lambda x: x.var(2, correction=0), SERIES, VARIANCE),
    (lambda x: x.var(2, correction=0, keepdim=True), SERIES, VARIANCE),
    (lambda x: x.var(2), SERIES, VARIANCE),
    (lambda x: x.std(2), SERIES, DEVIATION),
    (lambda x: torch.std(x, (2, 3), unbiased=False), IMAGE, DEVIATION),
    (lambda x: torch.var_mean(x, 2)[1], SERIES, ["AveragePool2d"]),
    (lambda x: torch.cat(torch.std_mean(x, 2, correction=2), 1), SERIES, [*DEVIATION, "Concat"]),
    (lambda x: x.max(2)[0], SERIES, ["MaxPool2d"]),
    (lambda x: x.max(-1, keepdim=True).values, SERIES, ["MaxPool2d"]),
    (lambda x: torch.max(x, 2).values, SERIES, ["MaxPool2d"]),
    (lambda x: x.min(2).values, SERIES, ["Table", "MaxPool2d", "Table"]),
    (lambda x: x.amin((2, 3)), IMAGE, ["Table", "MaxPool2d", "Table"]),
    (
        lambda x: torch.cat(torch.aminmax(x, dim=2), 1),
        SERIES,
        ["Table", "MaxPool2d", "Table", "MaxPool2d", "Concat"],
    ),
    (lambda x: x.sum(2), SERIES, ["Conv2d"]),
    (lambda x: x.nansum((1, -1), keepdim=True), IMAGE, ["Conv2d"]),
    (lambda x: x.nanmean(-1), SERIES, ["AveragePool2d"]),
    (lambda x: x.norm(dim=2), SERIES, DEVIATION[2:]),
    (lambda x: torch.linalg.vector_norm(x, 1, 2), SERIES, ["Table", "Conv2d"]),
    (lambda x: torch.linalg.vector_norm(x, torch.inf, 2), SERIES, ["Table", "MaxPool2d"]),
    (lambda x: torch.linalg.vector_norm(x, -torch.inf, 2), SERIES, ["Expression", "MaxPool2d", "Table"]),
    (lambda x: torch.linalg.norm(x, 1, dim=2), SERIES, ["Table", "Conv2d"]),
    (lambda x: torch.linalg.norm(x, "fro", dim=(2, 3)), IMAGE, DEVIATION[2:]),
    (lambda x: torch.linalg.matrix_norm(x, keepdim=True), IMAGE, DEVIATION[2:]),
    (lambda x: x.norm(3, (1, -1)), IMAGE, ["Requantize", "Expression", "Conv2d", "Table", "Requantize"]),
    (lambda x: x.norm(0.5, 2), SERIES, ["Expression", "Conv2d", "Table"]),
    (lambda x: x / (x.mean(2, keepdim=True).abs() + 1), SERIES, ["AveragePool2d", "Expression", "Mul"]),
    (lambda x: 3 / (x.abs() + 1), SERIES, ["Expression"]),
    (nn.AvgPool2d(2, divisor_override=3), IMAGE, ["AveragePool2d", "Table"]),
    (
        nn.LPPool1d(2, 3),
        SERIES,
        ["Requantize", "Table", "AveragePool2d", "Requantize", "Expression", "Requantize"],
    ),
    (nn.AdaptiveMaxPool1d(1), SERIES, ["MaxPool2d"]),
    (nn.AdaptiveMaxPool2d((3, 4)), IMAGE, ["MaxPool2d"]),
    (nn.AdaptiveAvgPool1d(5), SERIES, ["AveragePool2d"]),
    # Three columns twice each.
    (lambda x: F.adaptive_avg_pool1d(x[..., :3], 6), SERIES, []),
    # Windows that overlap by one, and by elements that repeat.
    (nn.AdaptiveAvgPool2d((2, 7)), IMAGE, ["AveragePool2d"]),
    (lambda x: F.adaptive_avg_pool2d(x[..., :3, :3], 7), IMAGE, ["AveragePool2d"]),
    (nn.AdaptiveAvgPool2d((4, 5)), IMAGE, ["AveragePool2d"]),
    (
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 7),
        IMAGE,
        [*["AveragePool2d"] * 7, "Concat"],
    ),
    (nn.AdaptiveAvgPool2d((7, 5)), IMAGE, [*["AveragePool2d"] * 5, "Concat"]),
    (nn.AdaptiveMaxPool2d((2, 3)), IMAGE, ["MaxPool2d"]),
    (nn.AdaptiveMaxPool2d((3, 5)), IMAGE, ["MaxPool2d"] * 6 + ["Concat"]),
    (nn.AdaptiveMaxPool1d(13), SERIES, []),
    (lambda x: torch.maximum(x, x.mean(2, keepdim=True)), SERIES, ["AveragePool2d", "Sub", "Add"]),
    (lambda x: torch.min(x.exp(), x), SERIES, ["Expression"]),
    # A slope below zero for each channel, or one.
    (nn.PReLU(4, 0.3), IMAGE, ["Prelu"]),
    (nn.GLU(1), SERIES, ["Table", "Mul"]),
    (nn.RReLU(), SERIES, ["Table"]),
    (lambda x: torch.addcmul(x, x, x.flip(1), value=0.5), SERIES, ["Mul", "Table", "Add"]),
    (lambda x: torch.lerp(x, x.flip(1), 0.3), SERIES, ["Sub", "Table", "Add"]),
    (
        lambda x: torch.hypot(x, x.flip(1) + 4),
        SERIES,
        ["Expression", "Requantize", "Table", "Requantize", "Add", "Table", "Requantize"],
    ),
    (lambda x: x // 0.5, SERIES, ["Table"]),
    (lambda x: x.diff(dim=2), SERIES, ["Sub"]),
    (lambda x: torch.clamp(x, -RAMP, RAMP / 4), SERIES, ["Activation", *["DepthwiseConv2d"] * 2, "Sub"]),
    (lambda x: F.cosine_similarity(x, x.flip(1), 2), SERIES, ["LayerNorm", "LayerNorm", "Mul", "Conv2d"]),
    (lambda x: F.pairwise_distance(x, x.flip(1)), SERIES, ["Sub", "Expression", "Conv2d", "Table"]),
    (nn.PReLU(), SERIES, ["Prelu"]),
    # Sums with a factor.
    (lambda x: torch.add(x, x.mean(2, keepdim=True), alpha=2), SERIES, ["AveragePool2d", "Table", "Add"]),
    (lambda x: torch.sub(x.exp(), x, alpha=0.5), SERIES, ["Expression"]),
    (lambda x: torch.rsub(x.mean(2, keepdim=True), x, alpha=3), SERIES, ["AveragePool2d", "Table", "Sub"]),
    (lambda x: torch.add(RAMP, x, alpha=2), SERIES, ["DepthwiseConv2d"]),
    # Constant masks.
    (lambda x: torch.where(MASK, x, 2.0), SERIES, ["DepthwiseConv2d"]),
    (lambda x: torch.where(MASK, -1.0, x), SERIES, ["DepthwiseConv2d"]),
    (
        lambda x: torch.where(MASK, x.tanh(), x),
        SERIES,
        ["Table", "DepthwiseConv2d", "DepthwiseConv2d", "Add"],
    ),
    (lambda x: x.tanh().masked_fill(MASK, -3.0), SERIES, ["Table", "DepthwiseConv2d"]),
    (lambda x: x.tanh().masked_fill_(~MASK, torch.tensor(2.0)), SERIES, ["Table", "DepthwiseConv2d"]),
    # Constant matrices.
    (lambda x: x @ torch.arange(26.0).reshape(13, 2), SERIES, ["Conv2d"]),
    (lambda x: torch.arange(12.0).reshape(3, 4) @ x, SERIES, ["Conv2d"]),
    (lambda x: x @ torch.arange(13.0), SERIES, ["Conv2d"]),
    (lambda x: torch.arange(4.0) @ x, SERIES, ["Conv2d"]),
    (lambda x: torch.mm(x, torch.arange(20.0).reshape(10, 2)), (10,), ["FullyConnected"]),
    (lambda x: torch.addmm(torch.ones(2), x, torch.ones(10, 2), beta=2, alpha=3), (10,), ["FullyConnected"]),
    (lambda x: torch.einsum("nct,tk->nck", x, torch.arange(26.0).reshape(13, 2)), SERIES, ["Conv2d"]),
    (lambda x: torch.einsum("kt,nct->nkc", torch.arange(26.0).reshape(2, 13), x), SERIES, ["Conv2d"]),
    (lambda x: torch.tensordot(x, torch.arange(104.0).reshape(4, 13, 2), 2), SERIES, ["FullyConnected"]),
    (lambda x: torch.tensordot(x, torch.arange(8.0).reshape(2, 4), ([1], [1])), SERIES, ["Conv2d"]),
    (lambda x: torch.tensordot(x, torch.arange(13.0), ([-1], [0])), SERIES, ["Conv2d"]),
    (
        lambda x: F.bilinear(x, x, torch.arange(24.0).reshape(2, 4, 3)[..., [0, 1, 2, 0]], torch.ones(2)),
        (4,),
        ["FullyConnected", "Matmul", "DepthwiseConv2d"],
    ),
    # Sums of blocks that overlap, with columns that no block has.
    (lambda x: F.fold(x[..., :9], (7, 6), (2, 1), 1, 0, 2), SERIES, ["ConvTranspose2d"]),
    (lambda x: F.fold(x[..., :12], (4, 5), 2), SERIES, ["ConvTranspose2d"]),
    # Padding with a number.
    (nn.ConstantPad1d((1, 2), 3.0), SERIES, ["Table"]),
    (lambda x: F.pad(x.exp(), (1, 0, 0, 1), value=-0.5), SERIES, ["Expression", "Table"]),
    # Functions of one variable.
    (F.softsign, SERIES, ["Expression"]),
    (F.tanhshrink, IMAGE, ["Expression"]),
    (lambda x: torch.exp(-torch.square(x)), SERIES, ["Expression"]),
    (lambda x: 1 - torch.tanh(x), SERIES, ["Expression"]),
    (lambda x: x * F.relu6(x + 3) / 6, SERIES, ["Expression"]),
    (lambda x: F.max_pool1d(x, 2).tanh() * 2, SERIES, ["MaxPool2d", "Expression"]),
    # What others read is a layer.
    (lambda x: torch.cat([x.exp(), x.exp() + 1], 1), SERIES, ["Table", "Expression", "Concat"]),
    (
        lambda x: (lambda y: y.neg() + y.mean(2, keepdim=True))(x.exp()),
        SERIES,
        ["Table", "Table", "AveragePool2d", "Add"],
    ),
    # Arithmetic with constants.
    (nn.Sequential(nn.Conv1d(4, 4, 3), Lambda(lambda x: x * 2 + 1)), SERIES, ["Conv2d"]),
    (nn.Sequential(nn.Conv1d(4, 4, 3), Lambda(lambda x: x / RAMP)), SERIES, ["Conv2d"]),
    (nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), Lambda(lambda x: x * 2 + 1)), SERIES, ["Conv2d"]),
    (lambda x: x.tanh() * RAMP + torch.ones(4, 1), SERIES, ["Table", "DepthwiseConv2d"]),
    (lambda x: x.tanh() + torch.linspace(-1, 1, 13), SERIES, ["Table", "DepthwiseConv2d"]),
    (lambda x: x.tanh() + torch.linspace(-1, 1, 52).reshape(4, 13), SERIES, ["Table", "DepthwiseConv2d"]),
    # Normalization over groups of channels, and products of matrices.
    (nn.GroupNorm(2, 4, affine=False), IMAGE, ["LayerNorm"]),
    (nn.InstanceNorm1d(4), SERIES, ["LayerNorm"]),
    (
        lambda x: F.scaled_dot_product_attention(x.tanh(), x, x.relu(), scale=0.5),
        SERIES,
        ["Activation", "Expression", "Matmul", "Softmax", "Matmul"],
    ),
    (lambda x: torch.einsum("nct,nkt->nck", x, x.tanh()), SERIES, ["Table", "Matmul"]),
    # A clamp commutes with a maximum.
    (nn.Sequential(nn.Conv1d(4, 4, 3), nn.MaxPool1d(2), nn.ReLU()), SERIES, ["Conv2d", "MaxPool2d"]),
]


@pytest.mark.parametrize(("function", "shape", "expected"), LAYERS)
def test_a_call_becomes_these_layers(
    function: Function | nn.Module, shape: tuple[int, ...], expected: list[str]
) -> None:
    module = (function if isinstance(function, nn.Module) else Lambda(function)).eval()
    x = sample(shape)
    assert operators(module, x) == expected
    nano = tn.to_nano(module, x, calibrate=x)
    assert nano.verify("host", x)
    with torch.no_grad():
        real = module(x)
    # A few steps of 8 bits: chains of up to five layers.
    assert float((nano(x) - real).abs().max()) <= 0.05 * float(real.abs().max())


#: Spellings of one computation each.
SPELLINGS: list[list[Function]] = [
    [
        lambda x: x.tanh() + 2,
        lambda x: 2 + x.tanh(),
        lambda x: torch.add(x.tanh(), 2),
        lambda x: x.tanh().add_(2),
        lambda x: x.tanh() - -2,
        lambda x: x.tanh().sub_(-2),
        lambda x: torch.subtract(x.tanh(), -2),
    ],
    [
        lambda x: 3 - x.tanh(),
        lambda x: torch.rsub(x.tanh(), 3),
        lambda x: -x.tanh() + 3,
        lambda x: x.tanh().negative().add_(3),
    ],
    [
        lambda x: x.tanh() / 4,
        lambda x: x.tanh().div_(4),
        lambda x: torch.true_divide(x.tanh(), 4),
        lambda x: x.tanh().divide(4),
        lambda x: x.tanh() * 0.25,
        lambda x: torch.multiply(x.tanh(), 0.25),
        lambda x: x.tanh().mul_(0.25),
    ],
    [
        lambda x: x**2,
        lambda x: x.pow(2),
        torch.square,
        lambda x: x.clone().square_(),
        lambda x: x.clone().pow_(2),
    ],
    [torch.abs, lambda x: x.absolute(), lambda x: x.clone().abs_(), lambda x: abs(x)],
    [lambda x: x.atan() + 0, lambda x: x.arctan() + 0, lambda x: x.clone().arctan_() + 0],
    [torch.trunc, torch.fix, lambda x: x.clone().trunc_()],
    [torch.sigmoid, F.sigmoid, torch.special.expit, nn.Sigmoid()],
    [torch.erf, torch.special.erf],
    [
        lambda x: x.clamp(-0.5, 1),
        lambda x: x.clip(-0.5, 1),
        lambda x: x.clone().clamp_(-0.5, 1),
        lambda x: x.clamp_min(-0.5).clamp_max(1),
        lambda x: F.hardtanh(x, -0.5, 1),
    ],
    [
        lambda x: torch.cat([x, x], 1),
        lambda x: torch.concat([x, x], 1),
        lambda x: torch.concatenate([x, x], 1),
    ],
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_spellings_of_one_computation_give_the_same_bytes(spellings: list[Function]) -> None:
    x = sample(SERIES)
    first, *others = [tn.to_nano(Lambda(spelling), x, calibrate=x)(x) for spelling in spellings]
    for other in others:
        assert torch.equal(first, other)


CONVOLUTION = nn.Conv1d(4, 4, 3)
#: These compute nothing beside the convolution.
VANISHING: list[Function] = [
    lambda x: CONVOLUTION(x.float()),
    lambda x: CONVOLUTION(x.to(torch.float32).to("cpu")),
    lambda x: CONVOLUTION(x).type_as(x),
    lambda x: CONVOLUTION(x.to(CONVOLUTION.weight)),
    lambda x: CONVOLUTION(x.to(CONVOLUTION.weight.device)),
    lambda x: CONVOLUTION(x.type(torch.float32)),
    lambda x: CONVOLUTION(x[:])[:, :, :],
    lambda x: CONVOLUTION(x[...].contiguous(memory_format=torch.contiguous_format)),
    lambda x: CONVOLUTION(x.clone(memory_format=torch.preserve_format)),
    lambda x: (torch._check(x.shape[1] == 4), CONVOLUTION(x))[1],
    lambda x: (torch._assert(x.shape[0] > 0, "empty"), CONVOLUTION(x))[1],
    lambda x: (torch._assert_async((x < 1e9).all()), CONVOLUTION(x))[1],
    lambda x: (x.sort(), CONVOLUTION(x))[1],
    nn.Sequential(nn.Identity(), CONVOLUTION, nn.Identity()),
]


@pytest.mark.parametrize("function", VANISHING)
def test_a_call_that_computes_nothing_vanishes(function: Function) -> None:
    assert operators(Lambda(function), sample(SERIES)) == ["Conv2d"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.half().float(),
        lambda x: F.softmax(x, 1, dtype=torch.float64),
        lambda x: F.layer_norm(x.double(), x.shape[2:]).float(),
        lambda x: x.double().sum(2).float(),
        lambda x: torch.linalg.norm(x.double() * torch.linspace(0, 1, 13, dtype=torch.float64), dim=2),
        lambda x: torch.cat([x.double(), x], 1).to(torch.bfloat16).float(),
    ],
)
def test_casts_between_real_numbers_vanish(function: Function) -> None:
    x = sample(SERIES)
    nano = tn.to_nano(Lambda(function), x, calibrate=x)
    assert nano.verify("host", x)
    real = function(x).float()
    # int8 keeps about 35 dB of them, bfloat16 more.
    assert float((nano(x) - real).square().sum() / real.square().sum()) < 10**-2.8


def test_a_model_may_return_its_input() -> None:
    x = sample(SERIES)
    nano = tn.to_nano(nn.Identity(), x, calibrate=x)
    assert nano.verify("host", x)
    assert float((nano(x) - x).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.int().float(), "converts float32 to int32, which the device has for indices only"),
        (lambda x: torch.linalg.norm(x, "nuc", dim=(1, 2)), "it is a matrix norm of order nuc"),
        (lambda x: F.adaptive_max_pool1d(x, 2, return_indices=True)[1], "its indices are read"),
        (lambda x: x.std(), "it mixes the samples of a batch"),
        (lambda x: x[:, :, :1].var(2), r"it is the variance of 1 number\(s\)"),
        (lambda x: x.norm(0, 2), "it is of order 0; expected a positive number or minus infinity"),
        (lambda x: torch.aminmax(x, dim=0)[0], "it mixes the samples of a batch"),
        (lambda x: torch.einsum("nct->nc", x), "its equation is 'nct->nc'"),
        (lambda x: torch.einsum("nct,nkd->nck", x, x), "sums over a dimension of one tensor alone"),
    ],
)
def test_what_a_composition_cannot_compute_is_refused(function: Function, reason: str) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=reason) as caught:
        capture(Lambda(function), sample(SERIES))
    assert all(node.way_out and "test_compositions.py" in node.source for node in caught.value.nodes)


def is_composition(node: fx.Node) -> bool:
    """Whether the capture expands a call; it does not if the call divides by a constant."""
    return node.target in COMPOSITIONS and (
        "div" not in str(node.target) or isinstance(node.args[1], fx.Node)
    )


def calls(graph: fx.Graph) -> Iterator[fx.Node]:
    return (node for node in graph.nodes if node.op == "call_function")


#: Compositions of operators that nano-core has, and of those to come: their calls alone.
TRACED: list[tuple[Function, tuple[int, ...]]] = [
    *((function, shape) for function, shape, _ in LAYERS if not isinstance(function, nn.Module)),
    (nn.GroupNorm(2, 4), IMAGE),
    (nn.GroupNorm(2, 4, affine=False), SERIES),
    (nn.InstanceNorm1d(4, affine=True), SERIES),
    (lambda x: F.scaled_dot_product_attention(x, x[:, :3], x[:, :3]), SERIES),
    (lambda x: F.scaled_dot_product_attention(x, x, x, torch.arange(81.0).reshape(9, 9), scale=0.3), IMAGE),
    (lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True), IMAGE),
    (lambda x: torch.einsum("nct,nkt->nck", x, x), SERIES),
    (lambda x: torch.einsum("nchw,nkhw->nkc", x, x), IMAGE),
    (lambda x: torch.einsum("nchw,nchv->nwcv", x, x), IMAGE),
    (lambda x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5, alpha=2), SERIES),
]


@pytest.mark.parametrize(("function", "shape"), TRACED)
def test_an_expanded_program_computes_the_same(function: Function, shape: tuple[int, ...]) -> None:
    x = sample(shape)
    module = Lambda(function)
    program = export(module, batch_of(module, x))
    graph = copy_of(program.graph)
    drop_unread(graph)
    kept: set[fx.Node] = set()
    while found := [node for node in calls(graph) if is_composition(node) and node not in kept]:
        if not expand(found[0], found[0].target, COMPOSITIONS[found[0].target]):
            kept.add(found[0])
    graph.lint()
    for node in calls(graph):
        assert node.meta.get("stack_trace") or "getitem" in str(node.target) or "sym" in str(node.target)
    tensors = {**program.state_dict, **program.constants}
    specs = program.graph_signature.input_specs
    inputs = [x if spec.target is None else tensors[spec.target] for spec in specs]
    (y,) = fx.Interpreter(fx.GraphModule(nn.Module(), graph)).run(*inputs)
    torch.testing.assert_close(y, module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(2),
        lambda x: x.sum((2, 3), keepdim=True),
        lambda x: x.sum(1),
        lambda x: x.sum((1, 3)),
        lambda x: x.sum((1, 2, 3)),
        lambda x: x.flatten(1).sum(-1, keepdim=True),
    ],
)
def test_a_sum_is_rounded_once(function: Function) -> None:
    x = torch.randn(32, 4, 10, 12, generator=torch.Generator().manual_seed(0))
    model = Lambda(function)
    nano = tn.to_nano(model, x[:2], calibrate=x)
    # Half a step of the sum, and what the rounding of each element adds up to: their errors are independent.
    elements = x.numel() // function(x).numel()
    steps = nano.input_quantization.scale * elements**0.5 / nano.output_quantization.scale
    worst = float((nano(x) - function(x)).abs().max()) / nano.output_quantization.scale
    assert worst <= 0.5 + 5 * steps / 12**0.5
    assert nano.verify(data=x)
