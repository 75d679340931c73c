"""Normalizations that a model writes out are one layer, in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

VECTORS, SERIES, IMAGES = (8,), (6, 8), (8, 5, 4)
EPS = 1e-5

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


class Scaled(nn.Module):
    """A function of x, a weight and a bias."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.function = function
        self.weight = nn.Parameter(torch.rand(8, generator=generator) + 0.5)
        self.bias = nn.Parameter(torch.randn(8, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.bias)


def _center(x: Tensor, dim: int = -1) -> Tensor:
    return x - x.mean(dim, keepdim=True)


def _channels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    spread = (x - mean).pow(2).mean(1, keepdim=True)
    return weight[:, None, None] * ((x - mean) / torch.sqrt(spread + 1e-6)) + bias[:, None, None]


def _with_casts(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    dtype = x.dtype
    x = x.to(torch.float32)
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)).to(dtype)


NORMALIZATIONS: list[tuple[Function, tuple[int, ...]]] = [
    (lambda x, g, b: _center(x) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + EPS) * g + b, SERIES),
    (lambda x, g, b: _center(x) / ((_center(x) ** 2).mean(-1, keepdim=True) + EPS).sqrt() * g + b, SERIES),
    (
        lambda x, g, b: (
            _center(x) * torch.rsqrt(torch.square(_center(x)).mean(-1, keepdim=True) + EPS) * g + b
        ),
        SERIES,
    ),
    (
        lambda x, g, b: (
            g * (_center(x) / ((_center(x) * _center(x)).mean(-1, keepdim=True) + EPS) ** 0.5) + b
        ),
        SERIES,
    ),
    (lambda x, g, b: _center(x) / torch.sqrt(x.var(1, keepdim=True, correction=0) + EPS) * g + b, VECTORS),
    (lambda x, g, b: _center(x) / (x.var(-1, keepdim=True) + EPS).sqrt() * g, SERIES),
    (lambda x, g, b: g * _center(x) / (x.std(-1, keepdim=True) + 1e-6) + b, SERIES),
    (lambda x, g, b: _center(x) / torch.std(x, -1, keepdim=True, correction=0).clamp_min(1e-6), SERIES),
    (_channels, IMAGES),
    (lambda x, g, b: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * g, SERIES),
    (lambda x, g, b: x / torch.sqrt((x**2).mean(-1, keepdim=True) + EPS) * g, SERIES),
    (lambda x, g, b: x / (x * x).sum(-1, keepdim=True).add(EPS).sqrt(), SERIES),
    (lambda x, g, b: x * (x.square().mean(-1, keepdim=True) + EPS).pow(-0.5), SERIES),
    (lambda x, g, b: x * (1.0 / torch.sqrt(x.square().mean(-1, keepdim=True) + EPS)), SERIES),
    (_with_casts, SERIES),
    (lambda x, g, b: F.normalize(x, dim=-1), SERIES),
    (lambda x, g, b: x / x.norm(dim=-1, keepdim=True), SERIES),
    (lambda x, g, b: F.layer_norm(x, (8,)) * g + b, SERIES),
    (lambda x, g, b: F.layer_norm(x, (8,), g, b) * 2.0 - 0.5, SERIES),
]


@pytest.mark.parametrize(("function", "shape"), NORMALIZATIONS)
def test_each_spelling_is_one_layer(function: Function, shape: tuple[int, ...]) -> None:
    model = Scaled(function).eval()
    x = 2 * torch.randn(48, *shape, generator=torch.Generator().manual_seed(0)) + 1
    graph = optimize(capture(model, x[:2]))
    assert [node.operator.name for node in graph.nodes] == ["layer_norm"]
    torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-4, atol=1e-4)
    nano = tn.to_nano(model, x[:2], calibrate=x, head=None)
    expected = model(x).detach()
    error = (nano(x) - expected).square().mean() / expected.square().mean()
    assert float(error) < 3e-4 and nano.verify(data=x)


def test_weight_and_bias_train() -> None:
    model = Scaled(NORMALIZATIONS[0][0])
    x = torch.randn(48, *SERIES, generator=torch.Generator().manual_seed(0))
    qat = tn.prepare_qat(model, x[:2], calibrate=x)
    qat(x).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in qat.parameters())
    assert torch.equal(qat.eval()(x), tn.to_nano(qat)(x))


@pytest.mark.parametrize(
    "function",
    [
        # Another mean, a number that counts beside the deviation, and what another tensor normalizes.
        lambda x, g, b: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(2, keepdim=True) + EPS),
        lambda x, g, b: _center(x) / (x.std(-1, keepdim=True) + 0.1),
        lambda x, g, b: x.flip(1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS),
        lambda x, g, b: x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + EPS),
    ],
)
def test_what_is_no_normalization_stays(function: Function) -> None:
    x = 2 * torch.randn(8, *SERIES, generator=torch.Generator().manual_seed(0)) + 1
    model = Scaled(function).eval()
    graph = optimize(capture(model, x[:2]))
    assert "layer_norm" not in [node.operator.name for node in graph.nodes]
    torch.testing.assert_close(graph.float_run(x)[0], model(x), rtol=1e-4, atol=1e-4)
