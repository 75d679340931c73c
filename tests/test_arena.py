"""The arena that nano-core plans for networks whose figures are known."""

from __future__ import annotations

import torch
import torch_nano as tn
from torch import nn


def mobilenet(width: float = 0.25, classes: int = 2) -> nn.Sequential:
    """MobileNetV1 for RGB images."""

    def channels(count: int) -> int:
        return int(count * width)

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU6()]

    layers = convolution(3, channels(32), 3, 2)
    inputs = channels(32)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for outputs, stride in [*blocks, (1024, 2), (1024, 1)]:
        layers += convolution(inputs, inputs, 3, stride, groups=inputs)
        layers += convolution(inputs, channels(outputs), 1, 1)
        inputs = channels(outputs)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def test_mobilenet_takes_what_the_better_order_takes() -> None:
    """By length alone it takes 64,512 bytes."""
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert tn.to_nano(mobilenet().eval(), x, calibrate=x).arena_bytes == 55_328
