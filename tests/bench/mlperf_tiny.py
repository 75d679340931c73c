"""The four architectures of MLPerf Tiny as plain PyTorch modules, for tests and benches.

Each function returns a network in training mode with torch's random initial weights. The softmax in which
some of the references end is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Architecture(NamedTuple):
    """How to make a network, and the shape of its input without batch."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


class ResidualBlock(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3)[:2]
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """A convolution, its batch norm and an activation; `padding` None is half of a square kernel."""
    if padding is None:
        assert isinstance(kernel, int)
        padding = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation())


def classifier(features: int, classes: int) -> list[nn.Module]:
    """The mean over all pixels, and a fully connected layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def resnet8() -> nn.Sequential:
    """The image classifier: a residual network for colour images of 32x32."""
    blocks = [ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)]
    return nn.Sequential(convolution(3, 16, 3), *blocks, *classifier(64, 10))


def ds_cnn() -> nn.Sequential:
    """The keyword spotter: depthwise separable convolutions for 49 frames of 10 coefficients."""
    # To 25x5, as with TensorFlow's padding "same", which has one row less at the top.
    layers = [convolution(1, 64, (10, 4), 2, padding=(5, 1))]
    for _ in range(4):
        layers += [convolution(64, 64, 3, groups=64), convolution(64, 64, 1)]
    return nn.Sequential(*layers, *classifier(64, 12))


def mobilenet_v1_025() -> nn.Sequential:
    """The detector of persons: MobileNetV1 of width 0.25 for colour images of 96x96."""
    layers = [convolution(3, 8, 3, 2, activation=nn.ReLU6)]
    inputs = 8
    blocks = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    for outputs, stride in blocks:
        layers += [
            convolution(inputs, inputs, 3, stride, groups=inputs, activation=nn.ReLU6),
            convolution(inputs, outputs, 1, activation=nn.ReLU6),
        ]
        inputs = outputs
    return nn.Sequential(*layers, *classifier(inputs, 2))


def ad01() -> nn.Sequential:
    """The anomaly detector: an autoencoder of 5 frames of 128 mel bands."""
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    layers = [
        layer
        for inputs, outputs in itertools.pairwise(widths)
        for layer in (nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(widths[-1], widths[0]))


#: By the names that reports have.
ARCHITECTURES = {
    "resnet8": Architecture(resnet8, (3, 32, 32)),
    "ds_cnn": Architecture(ds_cnn, (1, 49, 10)),
    "mobilenet_v1_025": Architecture(mobilenet_v1_025, (3, 96, 96)),
    "ad01": Architecture(ad01, (640,)),
}
