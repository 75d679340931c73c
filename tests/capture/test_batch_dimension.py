"""Calls on tensors whose batch is not the first dimension."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

LENGTH, WIDTH = 7, 6
X = torch.linspace(-1, 1, 3 * LENGTH * WIDTH).reshape(3, LENGTH, WIDTH).sin()


class Transposed(nn.Module):
    """`forward` of the module and an input [length, N, width]."""

    def __init__(self, forward: Callable[[Transposed, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(WIDTH, 4), nn.LayerNorm(WIDTH)
        self.position = nn.Parameter(torch.linspace(0, 1, LENGTH * WIDTH).reshape(LENGTH, 1, WIDTH))
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x.transpose(0, 1))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.linear(x).transpose(0, 1),
        lambda m, x: (x + m.position).transpose(1, 0),
        lambda m, x: (m.norm(x + m.position[:, 0, None]) * m.position[0, 0]).mean(0),
        lambda m, x: F.dropout(m.linear(x), training=m.training)[-1],
        lambda m, x: m.linear(x).relu_().amax(0),
        lambda m, x: x.mean(2).transpose(0, 1).clone(),
        lambda m, x: torch.softmax(x.mean(-1, keepdim=True), 0).permute(1, 2, 0),
        lambda m, x: torch.cat([x[2:5], x + x], 0).flip(2).permute(1, 0, 2),
        lambda m, x: m.linear(x.contiguous()).movedim(0, 2),
        lambda m, x: x.sum((0, 2), keepdim=True)[0],
        lambda m, x: x.permute(2, 0, 1).narrow(0, 1, 3).permute(2, 1, 0),
        lambda m, x: x[1:].transpose(0, 1).reshape(x.size(1), -1),
        lambda m, x: m.linear(x.reshape(LENGTH, -1, 2, WIDTH // 2).flatten(2)).transpose(0, 1),
        lambda m, x: x.unsqueeze(2).squeeze(2)[2:4].flip(0).unbind(0)[1],
        lambda m, x: torch.cat(x.split(3)[::-1], 0).chunk(2, 2)[1].movedim(1, 0),
        lambda m, x: torch.matmul(x.transpose(0, 1).unsqueeze(0), m.position[0].t()).squeeze(0),
    ],
)
def test_they_are_the_same_with_the_batch_in_front(forward: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    model = Transposed(forward).eval()
    graph = optimize(capture(model, X))
    with torch.no_grad():
        (found,) = graph.float_run(X)
        torch.testing.assert_close(found, model(X), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: torch.softmax(x, 1).transpose(0, 1),
        lambda m, x: x.mean(1),
        lambda m, x: m.linear(x.permute(0, 2, 1).reshape(LENGTH, -1, WIDTH)).transpose(0, 1),
    ],
)
def test_calls_over_the_batch_are_refused(forward: Callable[..., Tensor]) -> None:
    with pytest.raises(
        tn.errors.UnsupportedError,
        match=r"the batch is not its first|whose batch is dimension [12], and works along it",
    ):
        capture(Transposed(forward).eval(), X)
