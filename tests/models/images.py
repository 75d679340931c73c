"""Networks for images that people deploy on microcontrollers, as plain PyTorch modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, its batch norm and an activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation())


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 and MCUNet: expand, depthwise, project, and add the input where it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            convolution(inputs, hidden, 1),
            convolution(hidden, hidden, kernel, stride, groups=hidden),
            convolution(hidden, outputs, 1, activation=nn.Identity),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class McuNet(nn.Module):
    """Inverted residuals with depthwise kernels of 3, 5 and 7, as architecture search for MCUs finds them."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            # inputs, outputs, kernel, stride, expansion
            (16, 8, 3, 1, 1),
            (8, 16, 7, 2, 3),
            (16, 16, 3, 1, 4),
            (16, 24, 5, 2, 4),
            (24, 24, 5, 1, 5),
            (24, 40, 7, 2, 5),
            (40, 40, 3, 1, 4),
            (40, 48, 5, 1, 5),
            (48, 96, 5, 2, 6),
        ]
        self.stem = convolution(3, 16, 3, 2)
        self.blocks = nn.Sequential(*[InvertedResidual(*block) for block in blocks])
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
        return result


class OptionA(nn.Module):
    """The shortcut of CIFAR ResNets without weights: every second pixel, and new channels of zeros."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))


class CifarBlock(nn.Module):
    """Two convolutions of 3x3 and a shortcut of option A."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride, activation=nn.ReLU)
        self.second = convolution(outputs, outputs, 3, activation=nn.Identity)
        self.shortcut = OptionA(outputs - inputs) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class CifarResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 with option-A shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        blocks, inputs = [], 16
        for outputs, stride in [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2:
            blocks.append(CifarBlock(inputs, outputs, stride))
            inputs = outputs
        self.stem = convolution(3, 16, 3, activation=nn.ReLU)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = F.avg_pool2d(x, x.size(3))
        result: Tensor = self.classifier(x.view(x.size(0), -1))
        return result


class DsCnnSame(nn.Module):
    """DS-CNN with TensorFlow's padding "same": a ZeroPad2d of unequal sides before the first layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ZeroPad2d((1, 1, 4, 5)),
            nn.Conv2d(1, 64, (10, 4), 2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Dropout(0.2),
        ]
        for _ in range(4):
            layers += [
                convolution(64, 64, 3, groups=64, activation=nn.ReLU),
                convolution(64, 64, 1, activation=nn.ReLU),
            ]
        layers += [nn.Dropout(0.4), nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(64, 12), nn.Softmax(1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class MixedConvolution(nn.Module):
    """MixNet's depthwise convolution: a kernel of its own for each group of channels."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.part = channels // len(kernels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(self.part, self.part, kernel, padding=kernel // 2, groups=self.part)
            for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.part, dim=1)
        return torch.cat([layer(part) for layer, part in zip(self.convolutions, parts, strict=True)], dim=1)


class MixedNet(nn.Module):
    """A keyword spotter of mixed depthwise kernels over parts of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(1, 24, 3, 2, activation=nn.ReLU)
        blocks: list[nn.Module] = []
        for kernels in ((3, 5), (3, 5, 7), (5, 9)):
            blocks += [
                MixedConvolution(24, kernels),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                convolution(24, 24, 1, activation=nn.ReLU),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        result: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


class UNet(nn.Module):
    """A U-Net of two levels.

    Args:
        upsampling: "transposed", "nearest", "bilinear", or "bilinear, corners" (align_corners).
    """

    def __init__(self, upsampling: str) -> None:
        super().__init__()
        self.down = nn.ModuleList([convolution(3, 8, 3), convolution(8, 16, 3)])
        self.bottom = convolution(16, 16, 3)
        self.up = nn.ModuleList([_upsampling(upsampling, 16), _upsampling(upsampling, 8)])
        self.after = nn.ModuleList([convolution(32, 8, 3), convolution(16, 8, 3)])
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, after, skip in zip(self.up, self.after, reversed(skips), strict=True):
            x = after(torch.cat([up(x), skip], dim=1))
        result: Tensor = self.last(x)
        return result


def _upsampling(kind: str, channels: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    mode, _, corners = kind.partition(", ")
    return nn.Upsample(scale_factor=2, mode=mode, align_corners=bool(corners) if mode != "nearest" else None)


class EegNet(nn.Module):
    """EEGNet-8,2 for 16 electrodes and 128 samples: temporal, spatial and separable convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.temporal = nn.Sequential(nn.Conv2d(1, 8, (1, 64), padding="same", bias=False), nn.BatchNorm2d(8))
        self.spatial = nn.Sequential(
            nn.Conv2d(8, 16, (16, 1), groups=8, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Dropout(0.25),
        )
        self.separable = nn.Sequential(
            nn.Conv2d(16, 16, (1, 16), padding="same", groups=16, bias=False),
            nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 8)),
            nn.Dropout(0.25),
        )
        self.classifier = nn.Linear(16 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.separable(self.spatial(self.temporal(x.unsqueeze(1))))
        result: Tensor = self.classifier(x.flatten(1))
        return result


def narrow_vgg11() -> nn.Module:
    """torchvision's with a narrow classifier, which else has 120 of the 133 million weights."""
    model = torchvision.models.vgg11(init_weights=False)
    for index, (inputs, outputs) in zip((0, 3, 6), ((512 * 7 * 7, 64), (64, 64), (64, 1000)), strict=True):
        model.classifier[index] = nn.Linear(inputs, outputs)
    return model


def vision_transformer() -> nn.Module:
    """torchvision's, small; what it initializes with zeros (class token, head, biases) is random."""
    model: nn.Module = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=10,
    )
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model
