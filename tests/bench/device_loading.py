"""What checking a weight costs when a model is loaded on the emulated rv32imc board, by kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from device_board import SEED, measure, to_nano
from torch import nn

#: The most instructions per weight.
LIMIT = 10.0
#: Instructions per byte of the checksum (nano-core/src/image/checksum.rs): a quarter of a word's.
CHECKSUM_PER_BYTE = 7.5 / 4
#: Output channels of the two models whose difference is measured.
CHANNELS = (64, 128)


@dataclass(frozen=True)
class LoadingResult:
    """Instructions per weight of a kind of layer."""

    name: str
    #: Of its checks, and of the checksum over its weights and channels.
    instructions: float
    #: The checksum's part.
    checksum: float
    limit: float = LIMIT


def measure_loading() -> list[LoadingResult]:
    """All kinds, few weights per channel first."""
    torch.manual_seed(SEED)
    return [_measure(*kind) for kind in _kinds()]


def _kinds() -> list[tuple[str, Callable[[int], nn.Module], tuple[int, ...]]]:
    """Name, the layer with a number of output channels, the shape of its input: 0 is that number, too."""
    return [
        ("depthwise 3x3", lambda channels: nn.Conv2d(channels, channels, 3, groups=channels), (0, 3, 3)),
        ("conv 1x1 of 8", lambda channels: nn.Conv2d(8, channels, 1), (8, 4, 4)),
        ("fully connected of 10", lambda channels: nn.Linear(10, channels), (10,)),
        ("fully connected of 16", lambda channels: nn.Linear(16, channels), (16,)),
        ("conv 1x1 of 16", lambda channels: nn.Conv2d(16, channels, 1), (16, 4, 4)),
        ("conv 3x3 of 3", lambda channels: nn.Conv2d(3, channels, 3), (3, 6, 6)),
        ("conv 1x1 of 64", lambda channels: nn.Conv2d(64, channels, 1), (64, 4, 4)),
        ("fully connected of 128", lambda channels: nn.Linear(128, channels), (128,)),
    ]


def _measure(name: str, make: Callable[[int], nn.Module], shape: tuple[int, ...]) -> LoadingResult:
    """The difference between two numbers of channels: only what grows with the weights counts."""
    weights, lengths, loads = [], [], []
    for channels in CHANNELS:
        module = make(channels)
        nano = to_nano(module, tuple(side or channels for side in shape))
        weights.append(
            sum(parameter.numel() for key, parameter in module.named_parameters() if key == "weight")
        )
        lengths.append(len(nano.image))
        loads.append(measure(nano).load)
    more_weights, bytes_more, instructions = (last - first for first, last in (weights, lengths, loads))
    return LoadingResult(name, instructions / more_weights, CHECKSUM_PER_BYTE * bytes_more / more_weights)
