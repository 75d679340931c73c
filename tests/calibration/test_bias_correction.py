"""Biases are corrected by the mean error that the rounded weights cause."""

from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv2d": (lambda: nn.Conv2d(32, 8, 3, padding=1), (32, 6, 5)),
    "grouped": (lambda: nn.Conv2d(32, 8, 3, groups=4, bias=False), (32, 6, 5)),
    "depthwise": (lambda: nn.Conv2d(32, 32, 3, 2, padding=1, groups=32), (32, 6, 5)),
    "conv1d": (lambda: nn.Conv1d(32, 8, 3, padding=2, dilation=2), (32, 12)),
    "transposed": (lambda: nn.ConvTranspose2d(32, 8, 2, stride=2), (32, 4, 3)),
    "linear": (lambda: nn.Linear(96, 8), (96,)),
    "flattened": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 8)), (6, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_error_of_each_channel_vanishes(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make().eval()
    # Far from zero, as activations are: weights rounded up then add up. In few steps, so that the input is
    # exact in int8 and only the weights are rounded.
    x = torch.randint(128, 256, (256, *shape)) / 255.0
    x[0] = 1.0

    def mean_error(*, correct: bool) -> Tensor:
        nano = tn.to_nano(model, x[:2], calibrate=x, head=None, correct=correct)
        with torch.no_grad():
            error = nano(x) - model(x)
        return error.movedim(1, 0).flatten(1).mean(1)

    before, after = mean_error(correct=False), mean_error(correct=True)
    assert after.square().mean().sqrt() < 0.3 * before.square().mean().sqrt()


def test_batches_do_not_change_the_correction() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(24, 4).eval(), torch.rand(100, 24)
    whole = tn.to_nano(model, x[:2], calibrate=x, head=None)
    parts = tn.to_nano(model, x[:2], calibrate=list(x.split(7)), head=None)
    assert whole.image == parts.image
