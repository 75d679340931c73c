"""Layers of odd channels and small widths, which few kernels are made for: what the worst of them cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_nano as tn
from device_board import CHIP, SEED
from torch import Tensor, nn

CHANNELS, WIDTHS = (1, 3, 5, 7, 13, 17), range(1, 10)


@dataclass(frozen=True)
class OddResult:
    """What one layer cost."""

    name: str
    #: Multiply-accumulates; of pools and additions, elements of the output.
    units: int
    instructions: int
    cycles: int


class _Widths(nn.Module):
    """One layer for each width, each with an input of its own."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    # torch.export wants a name for each input.
    def forward(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        e: Tensor,
        f: Tensor,
        g: Tensor,
        h: Tensor,
        i: Tensor,
    ) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, (a, b, c, d, e, f, g, h, i), strict=True)]


class _Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


_KINDS: dict[str, Callable[[int], nn.Module]] = {
    "conv 3x3": lambda channels: nn.Conv2d(channels, channels, 3, padding=1),
    "conv 1x1": lambda channels: nn.Conv2d(channels, channels, 1),
    "depthwise 3x3": lambda channels: nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
    "max pool 3x3": lambda channels: nn.MaxPool2d(3, 1, 1),
    "average pool 3x3": lambda channels: nn.AvgPool2d(3, 1, 1),
    "add": lambda channels: _Twice(),
}


def measure_odd() -> list[OddResult]:
    """All layers, those that cost most per multiply-accumulate or element first."""
    torch.manual_seed(SEED)
    results = [result for kind in _KINDS for channels in CHANNELS for result in _measure(kind, channels)]
    return sorted(results, key=lambda one: one.instructions / one.units, reverse=True)


def _measure(kind: str, channels: int) -> list[OddResult]:
    module = _Widths([_KINDS[kind](channels) for _ in WIDTHS]).eval()
    inputs = tuple(torch.randn(16, channels, width, width) for width in WIDTHS)
    with warnings.catch_warnings():
        # Random numbers are no typical inputs, and accuracy is not measured here.
        warnings.simplefilter("ignore", tn.TorchNanoWarning)
        nano = tn.to_nano(module, inputs, calibrate=inputs, head=None, check=False)
    results = []
    for layer, profiled in zip(nano.summary().layers, nano.profile(CHIP).layers, strict=True):
        height, width = layer.output_shape[1:]
        results.append(
            OddResult(
                name=f"{kind} {height}x{width}x{channels}",
                units=layer.macs or channels * height * width,
                instructions=profiled.counts.instructions,
                cycles=profiled.counts.cycles,
            )
        )
    return results
