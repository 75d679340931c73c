"""Small networks of the kinds that people train for microcontrollers, with batch norm statistics as after
some training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNet1d(nn.Module):
    """A 1-D CNN for time series: the demo's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(3, 8, 5, padding=2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool1d(1),
        )
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.dropout(self.features(x).flatten(1)))
        return result


class ResidualNet(nn.Module):
    """Two residual blocks, one of them with a projection, and a flatten that permutes the classifier's
    columns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
        self.projection = nn.Conv2d(8, 12, 1, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Linear(12 * 2 * 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.first(x) + x)
        x = self.relu(self.second(x) + self.projection(x))
        result: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return result


class SeparableNet(nn.Module):
    """Depthwise separable convolutions with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6()]
        for inputs, outputs in ((8, 16), (16, 16)):
            layers += [
                nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU6(),
            ]
            layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.body(x))
        return result


class Mlp(nn.Module):
    """Linear layers on an image of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(8 * 8, 32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(torch.relu(self.hidden(self.flatten(x))))
        return result


class SqueezeExciteNet(nn.Module):
    """A convolution whose channels are weighted by squeeze and excite, its pixels by a mask, then squared."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU())
        self.excite = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Sigmoid())
        self.mask = nn.Conv2d(8, 1, 1)
        self.classifier = nn.Linear(8 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x * self.excite(self.squeeze(x))
        x = torch.tanh(self.mask(x)) * x
        result: Tensor = self.classifier(torch.flatten(x * x, 1))
        return result


class DifferenceNet(nn.Module):
    """Two branches of a series, their difference, and its distance to its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.fast = nn.Sequential(nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU())
        self.slow = nn.Sequential(nn.Conv1d(3, 6, 7, padding=3), nn.BatchNorm1d(6), nn.ReLU())
        self.classifier = nn.Linear(6 * 10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fast(x) - self.slow(x))
        x = x - x.mean(2, keepdim=True)
        result: Tensor = self.classifier(torch.flatten(x, 1))
        return result


class Decoder(nn.Module):
    """An image made smaller, and larger again by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 2, 3, stride=2, padding=1, output_padding=1),
        )
        self.classifier = nn.Linear(2 * 16 * 12, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(torch.flatten(self.decoder(self.encoder(x)), 1))
        return result


#: Each network with the shape of its input, without batch.
NETWORKS: tuple[tuple[type[nn.Module], tuple[int, ...]], ...] = (
    (ConvNet1d, (3, 40)),
    (ResidualNet, (2, 8, 8)),
    (SeparableNet, (1, 16, 16)),
    (Mlp, (1, 8, 8)),
    (SqueezeExciteNet, (2, 6, 6)),
    (DifferenceNet, (3, 10)),
    (Decoder, (2, 8, 6)),
)


def make(network: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network in evaluation mode with random weights of a fixed seed, and the statistics of its inputs in
    its batch norms.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                # None: the running statistics are those of all data so far.
                module.momentum = None
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        model.train()(inputs(dict(NETWORKS)[network], 256, seed))
    return model.eval()


def inputs(shape: tuple[int, ...], count: int, seed: int = 1) -> Tensor:
    """Random float inputs of a fixed seed that differ in their mean and size, so that outputs differ too."""
    generator = torch.Generator().manual_seed(seed)
    per_channel = (count, shape[0], *[1] * (len(shape) - 1))
    size = torch.rand(per_channel, generator=generator) * 2
    mean = torch.randn(per_channel, generator=generator)
    return torch.randn(count, *shape, generator=generator) * size + mean
