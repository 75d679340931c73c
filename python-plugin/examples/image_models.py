"""torchvision's networks for the images example: narrower, with other inputs, and their costs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_nano as tn
from torch import Tensor, nn
from torchvision import models  # type: ignore[import-untyped]
from torchvision.models.resnet import BasicBlock, ResNet  # type: ignore[import-untyped]

FULL_WIDTH = 64
"""Channels of resnet18's first convolution."""
ESP32_C3_FLASH = 4 * 2**20
"""Bytes of the common ESP32-C3 module's flash, for program and image."""


@dataclass(frozen=True)
class Cost:
    """A network's cost on the device; `refused` names calls that cannot run there ("": none)."""

    name: str
    parameters: int
    flash_bytes: int = 0
    arena_bytes: int = 0
    macs: int = 0
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether the image alone fits the flash of an ESP32-C3."""
        return not self.refused and self.flash_bytes < ESP32_C3_FLASH


def resnet18(classes: int, *, width: int = FULL_WIDTH, weights: str | None = None) -> ResNet:
    """torchvision's resnet18 with a new head `fc`, and `width / 64` of its channels.

    Args:
        weights: as torchvision's: "DEFAULT" downloads those of ImageNet; None: random ones.

    Raises:
        ValueError: weights of the full width for another one.

    >>> sum(parameter.numel() for parameter in resnet18(10).parameters())
    11181642
    >>> sum(parameter.numel() for parameter in resnet18(10, width=16).parameters())
    703386
    """
    if width != FULL_WIDTH and weights is not None:
        raise ValueError(f"weights={weights!r} are of width {FULL_WIDTH}, not of {width}")

    def scaled(channels: int) -> int:
        return channels * width // FULL_WIDTH

    model = models.resnet18(weights=weights)
    for name, module in list(model.named_modules()) if width != FULL_WIDTH else ():
        if isinstance(module, nn.Conv2d):
            # The images' channels stay.
            inputs = module.in_channels if name == "conv1" else scaled(module.in_channels)
            new: nn.Module = _convolution_like(module, inputs, scaled(module.out_channels))
        elif isinstance(module, nn.BatchNorm2d):
            new = nn.BatchNorm2d(scaled(module.num_features))
        else:
            continue
        model.set_submodule(name, new)
    model.fc = nn.Linear(scaled(model.fc.in_features), classes)
    # On a CPU, channels-last memory is several times as fast.
    return model.to(memory_format=torch.channels_last)


def _convolution_like(old: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution with other numbers of channels, initialised as in torchvision; resnet's have no bias."""
    size, stride, padding = (int(pair[0]) for pair in (old.kernel_size, old.stride, old.padding))
    new = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def with_five_channels(model: ResNet) -> ResNet:
    """A copy whose first convolution has two more input channels, which start with the mean of the others."""
    model = copy.deepcopy(model)
    old = model.conv1
    new = _convolution_like(old, 5, old.out_channels)
    with torch.no_grad():
        new.weight[:, :3] = old.weight
        new.weight[:, 3:] = old.weight.mean(1, keepdim=True)
    model.conv1 = new.to(memory_format=torch.channels_last)
    return model


def cost(name: str, model: nn.Module, images: Tensor) -> Cost:
    """A network's cost on the device, for images [N, channels, height, width]."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        summary = tn.to_nano(model.eval(), images[:1], calibrate=images).summary()
    except tn.errors.UnsupportedError as error:
        calls = "1 call" if len(error.nodes) == 1 else f"{len(error.nodes)} calls"
        return Cost(name, parameters, refused=f"{calls}, such as {error.nodes[0].operator}")
    return Cost(name, parameters, summary.flash_bytes, summary.arena_bytes, summary.macs)


def candidates(classes: int) -> dict[str, Callable[[], nn.Module]]:
    """Networks to choose from, with random weights, on which their costs do not depend."""
    return {
        "resnet18": lambda: resnet18(classes),
        "one block per layer": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes),
        "resnet18, 1/2 wide": lambda: resnet18(classes, width=32),
        "resnet18, 1/4 wide": lambda: resnet18(classes, width=16),
        "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=classes),
        "mnasnet0_5": lambda: models.mnasnet0_5(num_classes=classes),
        "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=classes),
    }
