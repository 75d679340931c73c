"""Numbers that forward reads of tensors: constants' are taken, others refused in words of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torchvision.transforms.functional import normalize

X = torch.randn(32, 4, 10, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(32, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.count: Tensor
        self.steps: Tensor
        self.register_buffer("count", torch.tensor(2))
        self.register_buffer("steps", torch.tensor([0.5, 2.0]))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _changed(model: Any, x: Tensor) -> Tensor:
    ones = torch.ones(2)
    first = ones[:1]
    ones.mul_(3)
    return x * first.item()


def _autocast(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x.transpose(1, 2)


def _updated(model: Any, x: Tensor) -> Tensor:
    model.steps += 1
    return x * model.steps[1]


def _updated_in_training(model: Any, x: Tensor) -> Tensor:
    if model.training:
        model.steps += 1
    return x * model.steps[1]


CONSTANT: list[tuple[Callable[[Any, Tensor], Any], Tensor]] = [
    (lambda m, x: x * m.scale.item(), X),
    (lambda m, x: x * float(m.scale * 2), X),
    (lambda m, x: x[:, : int(m.count)], X),
    (lambda m, x: x * 2 if m.steps.sum() > 2 else x, X),
    (lambda m, x: x * m.steps.tolist()[1] + m.steps.chunk(2)[0].item(), X),
    (lambda m, x: x * 2 if torch.equal(torch.tensor([0.5, 2]), m.steps) else x, X),
    (lambda m, x: x * torch.linspace(1, 2, 3)[1].item(), X),
    (lambda m, x: normalize(x, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]), IMAGES),
]


@pytest.mark.parametrize(("function", "x"), CONSTANT)
def test_numbers_of_constants_are_taken(
    function: Callable[[Any, Tensor], Any], x: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Model(function).eval()
    with torch.no_grad():
        torch.testing.assert_close(capture(model, x).float_run(x)[0], model(x), rtol=1e-6, atol=1e-6)
    assert tn.to_nano(model, x, calibrate=x, head=None, check=False).verify("host", x)
    assert capfd.readouterr() == ("", "")


#: What is refused, what the message says, and the same in the way that it names.
REFUSED: list[tuple[Callable[[Any, Tensor], Any], str, Callable[[Any, Tensor], Any]]] = [
    (
        lambda m, x: x * 2 if x.mean() > 0 else -x,
        r"bool\(tensor\), as of an if .*\n.*numbers of the input.*\n.*torch\.sigmoid",
        lambda m, x: (
            torch.sigmoid(x.mean(1, keepdim=True)) * x * 2 + (1 - torch.sigmoid(x.mean(1, keepdim=True))) * -x
        ),
    ),
    (lambda m, x: x * x.max().item(), r"tensor\.item\(\).*\n.*numbers of the input", lambda m, x: x * 2),
    (
        lambda m, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
        r"aten\.fake_quantize_per_tensor_affine \(.*test_constant_numbers.*\n.*\n.*in float",
        lambda m, x: x * 2,
    ),
    (_autocast, r"another dtype \(torch\.autocast\)\n.*out of forward", lambda m, x: x @ x.transpose(1, 2)),
    (_updated, "changes 'steps' of the model in forward", _updated_in_training),
]


@pytest.mark.parametrize(("refused", "message", "way_out"), REFUSED)
def test_other_numbers_are_refused_with_a_way_out(
    refused: Callable[[Any, Tensor], Any],
    message: str,
    way_out: Callable[[Any, Tensor], Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=message) as caught:
        capture(Model(refused).eval(), X)
    assert len(caught.value.nodes) == 1
    assert capfd.readouterr() == ("", "")
    assert tn.to_nano(Model(way_out).eval(), X, calibrate=X, head=None, check=False).verify("host", X)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_changed, "has changed in place"),
        (lambda m, x: x * torch.rand_like(m.scale).item(), "a number that forward draws"),
        (lambda m, x: x * torch.randn(1).sum().item(), "a number that forward draws"),
    ],
)
def test_tensors_that_change_are_no_constants(function: Callable[[Any, Tensor], Any], reason: str) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=rf"tensor\.item\(\).*\n.*{reason}"):
        capture(Model(function).eval(), X)


def test_training_refuses_numbers_of_a_parameter_that_it_changes() -> None:
    model = Model(lambda m, x: x * m.scale.item())
    with pytest.raises(tn.errors.UnsupportedError, match=r"parameter that is trained.*\n.*x \* self\.scale"):
        tn.prepare_qat(model, X, calibrate=X)
    tn.prepare_qat(Model(lambda m, x: x * m.scale), X, calibrate=X)
    tn.prepare_qat(Model(lambda m, x: x * m.steps[1].item()), X, calibrate=X)
