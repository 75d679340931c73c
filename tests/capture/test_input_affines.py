"""Affines at a model's inputs are removed from the graph and kept as factors and shifts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.graph import Graph

MEAN, STD = torch.tensor([0.5, -200.0, 3.0]), torch.tensor([0.25, 1000.0, 2.0])


class Normalized(nn.Module):
    """A convolution after `first(self, x)`, with mean and std in all the ways that models have them."""

    def __init__(self, first: Callable[[Normalized, Tensor], Tensor], sides: int = 1) -> None:
        super().__init__()
        self.first = first
        column = (3, *[1] * sides)
        self.register_buffer("mean", MEAN.reshape(column))
        self.register_buffer("std", STD.reshape(column))
        self.register_buffer("flat_mean", MEAN.clone())
        self.register_buffer("flat_std", STD.clone())
        self.gain = nn.Parameter(torch.tensor([4.0, 0.001, -0.5]).reshape(1, *column))
        self.bias = nn.Parameter(torch.tensor([-2.0, 0.2, 0.0]).reshape(column))
        self.plain = torch.tensor([1.0, 2.0, 3.0]).reshape(column)
        self.one = nn.Parameter(torch.tensor([0.5]))
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d)[sides - 1](3)
        with torch.no_grad():
            self.norm.running_mean.copy_(MEAN)
            self.norm.running_var.copy_(STD.square())
            self.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        self.conv = (nn.Conv1d, nn.Conv2d)[sides - 1](3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(self.first(self, x))
        return result


def like_torchvision(s: Normalized, x: Tensor) -> Tensor:
    """What torchvision's Normalize does with lists."""
    x = x.clone()
    mean = torch.as_tensor([0.5, -200.0, 3.0], dtype=x.dtype, device=x.device)
    std = torch.as_tensor([0.25, 1000.0, 2.0], dtype=x.dtype, device=x.device)
    if mean.ndim == 1:
        mean, std = mean.view(-1, 1), std.view(-1, 1)
    return x.sub_(mean).div_(std)


SPELLINGS: dict[str, Callable[[Normalized, Tensor], Tensor]] = {
    "batch norm": lambda s, x: s.norm(x),
    "batch norm by function": lambda s, x: F.batch_norm(x, s.flat_mean, s.flat_std),
    "buffers": lambda s, x: (x - s.mean) / s.std,
    "buffers viewed": lambda s, x: (x - s.flat_mean[:, None]) / s.flat_std.view(1, 3, 1),
    "computed": lambda s, x: (x - s.flat_mean[None, :, None]) * torch.rsqrt(s.std.square() + 1e-5),
    "inverse": lambda s, x: (x - s.flat_mean.reshape(3, 1)) * (1 / s.flat_std.reshape(3, 1)),
    "gain and bias": lambda s, x: x * s.gain + s.bias,
    "constants on the left": lambda s, x: s.plain - s.bias * x,
    "constant tensor": lambda s, x: torch.sub(x, s.plain, alpha=0.5) / s.plain,
    "one parameter": lambda s, x: (x + s.one) / s.one,
    "like torchvision": like_torchvision,
    "numbers": lambda s, x: 1 - (x / 255 - 0.5) * 2.0,
    "in place": lambda s, x: x.clone().mul_(s.gain).add_(s.bias),
    "several in a row": lambda s, x: s.norm((x * 2 - s.mean) / s.std),
}


def sample(sides: int = 1, samples: int = 16) -> Tensor:
    x = torch.randn(samples, 3, *[8] * sides, generator=torch.Generator().manual_seed(sides))
    return x * STD.reshape(3, *[1] * sides) + MEAN.reshape(3, *[1] * sides)


def of(model: nn.Module, x: Tensor) -> Graph:
    return optimize(capture(model.eval(), x))


def real_after(graph: Graph, x: Tensor) -> Tensor:
    found = graph.factor_and_shift(graph.inputs[0])
    assert found is not None
    factor, shift = (number.reshape(-1, *[1] * (x.dim() - 2)) for number in found)
    return (x.double() * factor + shift).float()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_is_taken_off(spelling: str) -> None:
    x, model = sample(), Normalized(SPELLINGS[spelling]).eval()
    graph = of(model, x)
    assert [node.operator.name for node in graph.nodes] == ["conv2d"]
    expected = model.first(model, x)
    # float32 rounds after each of a handful of steps.
    torch.testing.assert_close(real_after(graph, x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-5, atol=1e-5)


def test_images_are_taken_too() -> None:
    x = sample(2)
    for first in (lambda s, x: (x - s.mean) / s.std, lambda s, x: s.norm(x), lambda s, x: x / 255):
        model = Normalized(first, 2).eval()
        graph = of(model, x)
        assert [node.operator.name for node in graph.nodes] == ["conv2d"]
        torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-5, atol=1e-5)


class Forward(nn.Module):
    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.steps = forward
        self.register_buffer("mean", MEAN.clone())
        self.register_buffer("table", torch.ones(3, 8))
        self.register_buffer("whole", torch.tensor([[2], [3], [4]]))
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        # A vector: its elements are the channels.
        (Forward(lambda s, x: s.linear((x - s.mean) / 3), linear=nn.Linear(3, 2)), torch.randn(9, 3)),
        # The same for all channels: a reshape changes nothing.
        (Forward(lambda s, x: s.linear(x.flatten(1) / 255), linear=nn.Linear(12, 2)), torch.randn(9, 3, 4)),
        (
            Forward(lambda s, x: s.conv(x.reshape(x.shape[0], 3, 1, 4) * 2 - 1), conv=nn.Conv2d(3, 2, 1)),
            torch.randn(9, 3, 4),
        ),
    ],
)
def test_vectors_and_reshapes(model: nn.Module, x: Tensor) -> None:
    graph = of(model, x)
    assert len(graph.affines["x"]) == 2 - ("flatten" in str(capture(model, x)))
    assert {node.operator.name for node in graph.nodes} <= {"move", "conv2d", "fully_connected"}
    torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("forward", "left"),
    [
        # Others read the raw input: it is part of the convolution after it.
        (lambda s, x: s.conv(s.norm(x)) + x, 0),
        (lambda s, x: s.conv(x - s.mean[:, None]) + s.conv(x * s.mean[:, None]), 0),
        (lambda s, x: torch.tanh(s.norm(x)) + x, 1),
        # The model returns it.
        (lambda s, x: s.norm(x), 1),
        # There is a layer before it.
        (lambda s, x: s.norm(torch.tanh(x)), 1),
    ],
)
def test_what_is_read_elsewhere_is_not_part_of_the_input(forward: Callable[..., Tensor], left: int) -> None:
    model = Forward(forward, conv=nn.Conv1d(3, 3, 1), norm=nn.BatchNorm1d(3)).eval()
    x = sample()
    graph = of(model, x)
    assert not graph.affines
    assert sum(node.operator.name == "depthwise_conv2d" for node in graph.nodes) == left
    torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-5, atol=1e-3)


def test_what_follows_a_value_that_others_read_is_not_part_of_the_input() -> None:
    """The first one is taken off, as all that reads the input is in it."""
    model = Forward(
        lambda s, x: (lambda y: s.conv(s.norm(y)) + s.conv(y))(x / 255),
        conv=nn.Conv1d(3, 3, 1),
        norm=nn.BatchNorm1d(3),
    ).eval()
    graph = of(model, sample())
    assert [affine.operator.name for affine in graph.affines["x"]] == ["channel_affine"]
    assert [node.operator.name for node in graph.nodes] == ["conv2d", "conv2d", "add"]


def test_a_dropout_before_it_keeps_it() -> None:
    x = sample()
    before = of(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Conv1d(3, 2, 1)), x)
    after = of(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Conv1d(3, 2, 1)), x)
    assert not before.affines and len(after.affines["input"]) == 1
    assert len(before.values["input"].dropouts) == len(after.values["input"].dropouts) == 1


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda s, x: s.conv(x[:, :1] * s.table), r"shape \[3, 8\]; the tensor is \[N, 1, 8\]"),
        (lambda s, x: s.conv(x + s.table / 0), "its constant has infinite numbers or NaN"),
        (lambda s, x: s.conv(x + s.whole), r"'whole' is of torch.int64"),
        (lambda s, x: s.conv(x * x.shape[0]), "depends on the batch size"),
    ],
)
def test_what_is_no_number_for_each_channel_is_refused(forward: Callable[..., Tensor], reason: str) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=reason):
        capture(Forward(forward, conv=nn.Conv1d(3, 3, 1)), sample())


def test_a_standard_deviation_of_zero_is_named() -> None:
    model = Normalized(lambda s, x: (x - s.mean) / s.std)
    model.std[1] = 0
    with pytest.raises(tn.errors.NonFiniteError, match=r"multiplies input 'x' by infinity.*a divisor 0"):
        tn.to_nano(model, sample(), calibrate=sample())
