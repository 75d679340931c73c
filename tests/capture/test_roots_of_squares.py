"""Roots of squares: int16 by default, and what that keeps of numbers over two decades."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.precision import LayerDtype


class Features(nn.Module):
    """A function of a window."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def windows(count: int, seed: int) -> Tensor:
    """Windows [count, 6, 64] of sensors whose amplitudes differ by up to two decades."""
    generator = torch.Generator().manual_seed(seed)
    amplitude = 10 ** (2 * torch.rand(count, 6, 1, generator=generator) - 1)
    offset = torch.randn(count, 6, 1, generator=generator) / 2
    return amplitude * (torch.randn(count, 6, 64, generator=generator) + offset)


X = windows(128, 0)
#: A function, and the dB that it keeps at least; in int8 it is 10 to 15 dB less.
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "standard deviation over time": (lambda x: x.std(2), 30),
    "standard deviation over channels": (lambda x: x.std(1, correction=0), 30),
    "standard deviation over both": (lambda x: x.std((1, 2), keepdim=True), 40),
    "norm": (lambda x: x.norm(dim=2), 30),
    "pool": (lambda x: F.lp_pool1d(x, 2.0, 8), 28),
    "written out": (lambda x: x.square().mean(2).sqrt(), 30),
    "product with itself": (lambda x: (x * x).sum((1, 2)) ** 0.5, 40),
    "hypot": (lambda x: torch.hypot(x[:, :3], x[:, 3:]), 24),
    "followed by a pool": (lambda x: F.max_pool1d(x.norm(dim=2)[:, None], 2), 30),
}


def sqnr(nano: tn.NanoModule, model: nn.Module, x: Tensor) -> float:
    """dB of a model's outputs, over all of them."""
    expected = model(x)
    return float(10 * torch.log10(expected.square().sum() / (nano(x) - expected).square().sum()))


@pytest.mark.parametrize("name", FORMS)
def test_roots_of_squares_keep_numbers_of_two_decades(name: str, tmp_path: Path) -> None:
    function, least = FORMS[name]
    model, x = Features(function), windows(128, 1)
    nano = tn.to_nano(model, X[:2], calibrate=X, check=False)
    found = sqnr(nano, model, x)
    assert found >= least
    assert nano.verify("host", x)
    # Other layers, and the model's inputs and outputs, are as before.
    assert {each.dtype for each in nano.output_quantizations.values()} == {"int8"}
    assert {each.dtype for each in nano.input_quantizations.values()} == {"int8"}
    nano.save(tmp_path / "model.nano")
    assert tn.load(tmp_path / "model.nano").id == nano.id

    in_int8 = tn.to_nano(model, X[:2], calibrate=X, check=False, precision={"": "int8"})
    assert {layer.dtype for layer in in_int8.summary().layers} == {"int8"}
    assert sqnr(in_int8, model, x) < found - 6


@pytest.mark.parametrize("name", ["standard deviation over time", "pool"])
def test_roots_of_squares_on_the_board_and_in_training(name: str) -> None:
    model = nn.Sequential(nn.Conv1d(6, 6, 3), Features(FORMS[name][0]), nn.Flatten(), nn.LazyLinear(3))
    torch.manual_seed(0)
    model(X)
    qat = tn.prepare_qat(model.eval(), X[:2], calibrate=X)
    qat(X[:8]).square().mean().backward()
    assert bool(qat.get_parameter("0.weight").grad.any())  # type: ignore[union-attr]
    nano = qat.eval().to_nano()
    assert torch.equal(qat(X[:8]), nano(X[:8])) and nano.verify("rv32imc")


@pytest.mark.parametrize("precision", [None, {"": "int8"}, {"": "int16"}])
@pytest.mark.parametrize("name", ["standard deviation over time", "norm", "followed by a pool"])
def test_the_precision_of_roots_of_squares_makes_the_same_model(
    name: str, precision: dict[str, LayerDtype] | None
) -> None:
    model = Features(FORMS[name][0])
    nano = tn.to_nano(model, X[:2], calibrate=X, check=False, precision=precision)
    assert nano.precision == (precision or {})
    again = tn.to_nano(model, X[:2], calibrate=X, check=False, precision=nano.precision)
    assert again.id == nano.id


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.var(2),
        lambda x: x.abs().sum(2).sqrt(),
        lambda x: x.square().sum(2).tanh(),
        lambda x: x.square().sum(2).sigmoid().sqrt(),
    ],
)
def test_other_chains_stay_in_int8(function: Callable[[Tensor], Tensor]) -> None:
    assert not optimize(capture(Features(function), X[:2])).dtypes
