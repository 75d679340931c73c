"""Comparisons with numbers, and selections by them: one table if all are functions of one variable."""

from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

from .test_compositions import Lambda

Function = Callable[[Tensor], Tensor]
#: Functions of one variable.
TABLES: list[Function] = [
    lambda x: (x > 0).float(),
    lambda x: (x.abs() <= 0.5).to(x.dtype),
    lambda x: x * (x > 0),
    lambda x: x * ((x > -1) & (x < 1)).float(),
    lambda x: x * ~((x > -1) | (x < -2)),
    lambda x: x * ((x > -1) ^ (x > 1)),
    lambda x: torch.where(x > 0, x, 0.1 * x),
    lambda x: torch.where(x > 0, x, 0.0),
    lambda x: torch.where(x > 0, 1.0, x),
    lambda x: torch.where(x > 0, 1.0, -1.0),
    # The side that is not selected is infinite or NaN.
    lambda x: torch.where(x > 0, x, torch.exp(-100 * x.abs()) - 1),
    lambda x: torch.where(x > 0.1, torch.log(x), x),
    lambda x: x.masked_fill(x < 0, 0.5),
    lambda x: x.clone().masked_fill_(x.abs() < 0.2, 0.0),
]
#: Functions of several, with another spelling.
SEVERAL: list[tuple[Function, Function]] = [
    (lambda x: torch.where(x[:, :3] > x[:, 3:], x[:, :3], x[:, 3:]), lambda x: x[:, :3].maximum(x[:, 3:])),
    (lambda x: torch.where(x[:, :3] > 0, x[:, 3:], 0.5), lambda x: _selected(x, 0.5)),
    (lambda x: torch.where(x[:, :1] > 0, x[:, 3:], 0.0), lambda x: (x[:, :1] > 0) * x[:, 3:]),
]


def _selected(x: Tensor, number: float) -> Tensor:
    mask = (x[:, :3] > 0).float()
    return mask * x[:, 3:] + (1 - mask) * number


def sample() -> Tensor:
    return torch.randn(40, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", TABLES)
def test_functions_of_one_variable_with_truth_values_are_one_table(function: Function) -> None:
    x, model = sample(), Lambda(function)
    graph = optimize(capture(model, x))
    assert [node.operator.name for node in graph.nodes] == ["table"]
    assert torch.equal(graph.float_run(x)[0], function(x).float())
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    assert not nano.verify("host", x).differing_bytes


@pytest.mark.parametrize("function, same", SEVERAL)
def test_selections_among_several_tensors_are_products(function: Function, same: Function) -> None:
    x, model = sample(), Lambda(function)
    torch.testing.assert_close(optimize(capture(model, x)).float_run(x)[0], same(x))
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    assert not nano.verify("host", x).differing_bytes


def test_a_comparison_of_tensors_is_that_of_their_difference() -> None:
    x, model = sample(), Lambda(lambda x: (x[:, :3] >= x[:, 3:]).float())
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    # Close numbers have the difference 0 in int8.
    assert (nano(x) == model(x)).float().mean() > 0.98


def test_selections_train() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return torch.where(y > 0, y, 0.2 * y) * (x[:, :4] > 0)

    torch.manual_seed(0)
    qat = tn.prepare_qat(Gated(), x, calibrate=x)
    qat(x).sum().backward()
    gradient = qat.get_parameter("layer.weight").grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert torch.equal(qat.eval()(x), qat.to_nano()(x))


@pytest.mark.parametrize(
    "function, reason",
    [
        (lambda x: torch.where(x > 0, x, -torch.inf), "selects -inf"),
        (lambda x: torch.where(x > 0, x, torch.arange(5.0)), "selects from a tensor that does not"),
        (lambda x: x * (x[:, :3] == x[:, 3:]).repeat(1, 2, 1), "equal or finite"),
    ],
)
def test_other_selections_are_refused_with_a_way_out(function: Function, reason: str) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=f"(?s){reason}.*way out"):
        capture(Lambda(function), sample())


def test_truth_values_are_no_outputs() -> None:
    with pytest.raises(tn.errors.CaptureError, match="truth values"):
        capture(Lambda(lambda x: x > 0), sample())
