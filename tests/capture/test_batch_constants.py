"""Constants that a model makes in the size of the batch are constants of one sample."""

from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

from .test_compositions import Lambda

TABLE = torch.linspace(-1, 1, 40).reshape(8, 5)
FORMS: list[Callable[[Tensor], Tensor]] = [
    lambda x: torch.zeros(x.shape[0], 4, 5) + x,
    lambda x: torch.zeros(x.shape[0], 1, 5).tanh() + x,
    lambda x: x.new_ones(x.shape[0], 4, 5) * 0.5 - x,
    lambda x: torch.where(torch.arange(5) < 3, x, torch.zeros_like(x)),
    lambda x: torch.maximum(x, torch.full_like(x, 0.5)),
    lambda x: torch.ones(x.shape[0], 5).unsqueeze(1) * 0.5 + x,
    lambda x: torch.ones(x.shape[0], 4, 5, 1).squeeze(-1) * 0.5 + x,
    lambda x: torch.cat([x, torch.zeros(x.shape[0], 2, 5)], 1),
    lambda x: torch.cat([torch.ones_like(x), x], 1),
    lambda x: torch.cat([x[:, :1], torch.full((x.shape[0], 3, 5), 0.5)], 1),
    lambda x: torch.stack([x, torch.ones_like(x)], 1),
    lambda x: torch.cat([x, TABLE[:1].expand(x.shape[0], -1, -1)], 1),
    lambda x: x + TABLE[None, :4].repeat(x.shape[0], 1, 1),
    lambda x: x + torch.embedding(TABLE, torch.arange(4).unsqueeze(0).expand(x.shape[0], -1)),
    lambda x: (x.transpose(0, 1) + torch.ones(4, x.shape[0], 5)).transpose(0, 1),
]


@pytest.mark.parametrize("function", FORMS)
def test_a_constant_of_the_batch_is_that_of_one_sample(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(40, 4, 5, generator=torch.Generator().manual_seed(0))
    model = Lambda(function)
    torch.testing.assert_close(optimize(capture(model, x)).float_run(x)[0], function(x))
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    assert nano.verify("host", x[:4])


def test_numbers_of_the_samples_are_no_constant_of_the_batch() -> None:
    model = Lambda(lambda x: x + torch.arange(x.shape[0]).float()[:, None])
    with pytest.raises((tn.errors.UnsupportedError, tn.errors.CaptureError)):
        capture(model, torch.randn(6, 4))
