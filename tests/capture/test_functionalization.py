"""Calls in place and writes into parts of tensors change what is read later, as in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.capture.capture import capture

from .test_compositions import Lambda

X = inputs((4, 10), 32)
FORMS: list[Callable[[Tensor], Tensor]] = []


def form(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    FORMS.append(function)
    return function


@form
def the_source_of_a_call_in_place(x: Tensor) -> Tensor:
    y = 2 * x
    F.relu_(y)
    return y + x


@form
def a_copy_before_a_call_in_place(x: Tensor) -> Tensor:
    y = 2 * x
    z = y.clone()
    y.clip_(0, 1).mul_(3)
    return y + z


@form
def a_view_of_a_tensor_that_is_overwritten(x: Tensor) -> Tensor:
    y = 2 * x
    view, other = y.flatten(1), y.transpose(1, 2).flatten(1)
    F.relu_(y)
    return view - other


@form
def a_dropout_after_a_call_in_place(x: Tensor) -> Tensor:
    return 1 + F.dropout(F.relu_(2 * x), training=False)


@form
def views_that_are_overwritten(x: Tensor) -> Tensor:
    y = 2 * x
    y.transpose(1, 2)[:, 0] = 0.0
    y.view(-1, 40)[:, 3:5] = 1.0
    a, _ = y.chunk(2, 1)
    a.relu_()
    y[:, 0].mul_(2)
    y[:, 1] += 1
    return y


@form
def a_shift_of_channels_into_zeros(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2, :-1] = x[:, :2, 1:]
    y[:, 2:3, 1:] = x[:, 2:3, :-1]
    y[:, 3:] = x[:, 3:]
    return y


@form
def turns(x: Tensor) -> Tensor:
    y = torch.empty(x.shape[0], 4, 29)
    y[..., ::3] = x
    y[..., 1::3] = x * 0.5
    y[..., 2::3] = 0
    return y


@form
def steps_of_a_loop(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 10, 4)
    for step in range(10):
        y[:, step] = x[:, :, step] * (step + 1)
    return y


@form
def lists_of_indices(x: Tensor) -> Tensor:
    y = torch.ones_like(x)
    y[:, [2, 0, 3]] = x[:, 1:]
    y[:, :, [1, -1]] = 0.5
    y[y < 0] = 0.25
    return y


@form
def a_parameter_around_the_input(x: Tensor) -> Tensor:
    y = torch.linspace(-1, 1, 48).reshape(4, 12).expand(x.shape[0], 4, 12).clone()
    y[:, :, 1:11] = x
    return y


@form
def constants_in_parts(x: Tensor) -> Tensor:
    angles = torch.arange(4.0)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.5, 0.2])
    table = torch.zeros(4, 10)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()
    table.fill_diagonal_(2.0)
    return x + table


@form
def a_mask_in_parts(x: Tensor) -> Tensor:
    mask = torch.zeros(4, 4)
    mask[torch.ones(4, 4).triu(1) == 1] = float("-inf")
    return (x @ x.transpose(1, 2) + mask).softmax(-1)


@form
def the_input(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x * 2


@pytest.mark.parametrize("function", FORMS)
def test_what_is_read_after_a_write_is_what_torch_reads(function: Callable[[Tensor], Tensor]) -> None:
    model = Lambda(function)
    (found,) = capture(model, X).float_run(X.clone())
    torch.testing.assert_close(found, function(X.clone()))
    assert tn.to_nano(model, X, calibrate=X, head=None, check=False).verify("host", X[:2])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 4, 10))

    def forward(self, x: Tensor) -> Tensor:
        self.last[:, 0].mul_(0.5)
        return x - self.last


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Counting(), "it changes 'last' of the model in forward.*\n.*if self.training"),
        (Lambda(lambda x: x.unfold(2, 2, 2).mul_(2)), r"no slice.*\n.*y\[:, 2:5\] = x"),
        (Lambda(lambda x: (2 * x).index_put_((x[:, 0, 0] > 0,), torch.ones(()))), "no slice|depends"),
    ],
)
def test_writes_without_a_rule_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=message):
        capture(model, X)
