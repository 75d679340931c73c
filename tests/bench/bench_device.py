"""Counts what layers and whole models cost on the emulated rv32imc board: `just bench-device`.

Instructions are counted by the board itself and are the same on every run. Prints four tables, writes
build/bench/device.json, and ends with status 1 if something costs more than its limit or than the committed
baseline allows (device_baseline.py), or if the board's bytes are not the host's.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
# Where the stories' models are.
sys.path.insert(0, str(ROOT / "python-plugin/examples"))

import device_baseline  # noqa: E402
from device_board import SEED, CodeSize, code_sizes, measure, to_nano  # noqa: E402
from device_heads import HeadResult, measure_heads  # noqa: E402
from device_models import ModelResult, measure_models  # noqa: E402

REPORT = ROOT / "build/bench/device.json"
#: Instructions per multiply-accumulate that nothing below may exceed.
CONVOLUTION_LIMIT, DEPTHWISE_LIMIT = 4.0, 6.0


@dataclass(frozen=True)
class Case:
    """One layer: a module, its input's shape without batch, and its limit if it has one."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    limit: float | None = None


@dataclass(frozen=True)
class LayerResult:
    """What one layer cost."""

    name: str
    macs: int
    instructions: int
    #: Instructions per multiply-accumulate, None if it has no limit.
    limit: float | None


class Sum(nn.Module):
    """x + x: an addition of two values."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


def convolution(
    kernel: int, inputs: int, outputs: int, side: tuple[int, int], limit: float | None, stride: int = 1
) -> Case:
    """A convolution with the padding that keeps the sides."""
    name = f"conv {kernel}x{kernel} {side[0]}x{side[1]} {inputs}->{outputs}" + (
        f" stride {stride}" if stride > 1 else ""
    )
    return Case(name, nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), (inputs, *side), limit)


def depthwise(
    kernel: int, channels: int, side: tuple[int, int], limit: float | None, stride: int = 1
) -> Case:
    """A depthwise convolution with the padding that keeps the sides."""
    name = f"depthwise {kernel}x{kernel} {side[0]}x{side[1]}x{channels}" + (
        f" stride {stride}" if stride > 1 else ""
    )
    layer = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)
    return Case(name, layer, (channels, *side), limit)


def linear(inputs: int, outputs: int, limit: float | None) -> Case:
    """A fully connected layer."""
    return Case(f"fully connected {inputs}->{outputs}", nn.Linear(inputs, outputs), (inputs,), limit)


def cases() -> list[Case]:
    """The layers; those without a limit make no products."""
    return [
        convolution(3, 16, 16, (32, 32), CONVOLUTION_LIMIT),
        convolution(3, 3, 16, (32, 32), CONVOLUTION_LIMIT),
        convolution(3, 32, 32, (16, 16), CONVOLUTION_LIMIT),
        convolution(3, 16, 32, (32, 32), CONVOLUTION_LIMIT, stride=2),
        convolution(3, 64, 64, (8, 8), CONVOLUTION_LIMIT),
        convolution(1, 16, 16, (32, 32), CONVOLUTION_LIMIT),
        convolution(1, 64, 64, (25, 5), CONVOLUTION_LIMIT),
        convolution(1, 128, 128, (6, 6), CONVOLUTION_LIMIT),
        depthwise(3, 64, (25, 5), DEPTHWISE_LIMIT),
        depthwise(3, 8, (48, 48), DEPTHWISE_LIMIT),
        depthwise(3, 16, (48, 48), DEPTHWISE_LIMIT, stride=2),
        depthwise(3, 64, (25, 5), DEPTHWISE_LIMIT, stride=2),
        depthwise(3, 64, (12, 12), DEPTHWISE_LIMIT),
        depthwise(3, 64, (6, 6), DEPTHWISE_LIMIT),
        depthwise(5, 16, (24, 24), DEPTHWISE_LIMIT),
        depthwise(5, 32, (25, 25), DEPTHWISE_LIMIT, stride=2),
        linear(784, 128, CONVOLUTION_LIMIT),
        linear(640, 128, CONVOLUTION_LIMIT),
        linear(128, 10, CONVOLUTION_LIMIT),
        linear(64, 64, CONVOLUTION_LIMIT),
        linear(64, 16, CONVOLUTION_LIMIT),
        linear(16, 16, CONVOLUTION_LIMIT),
        Case("add 16x16x32", Sum(), (32, 16, 16)),
        Case("max pool 2x2 32x32x16", nn.MaxPool2d(2), (16, 32, 32)),
        Case("average pool 8x8x64", nn.AvgPool2d(8), (64, 8, 8)),
        Case("sigmoid 16x16x32", nn.Sigmoid(), (32, 16, 16)),
        Case("softmax 10", nn.Softmax(1), (10,)),
    ]


def measure_layers() -> list[LayerResult]:
    """All layers."""
    torch.manual_seed(SEED)
    results = []
    for case in cases():
        nano = to_nano(case.module, case.shape)
        (instructions,) = measure(nano).layers
        results.append(LayerResult(case.name, nano.summary().macs, instructions, case.limit))
    return results


@dataclass(frozen=True)
class Report:
    """All that is measured, as build/bench/device.json has it."""

    layers: list[LayerResult]
    models: list[ModelResult]
    heads: list[HeadResult]
    code: list[CodeSize]

    def costs(self) -> device_baseline.Costs:
        """What the baseline holds."""
        costs: dict[tuple[str, str], float] = {}
        for layer in self.layers:
            costs[layer.name, "instructions"] = layer.instructions
        for model in self.models:
            costs[model.name, "instructions"] = model.instructions
            costs[model.name, "instructions of loading"] = model.load_instructions
            costs[model.name, "arena in bytes"] = model.arena_bytes
        for head in self.heads:
            costs[head.head, head.cost] = head.value
        for size in self.code:
            costs[size.name, "code in bytes"] = size.code_bytes
        return {device_baseline.Key(*key): value for key, value in costs.items()}

    def over_limits(self) -> list[str]:
        """What costs more than its own limit."""
        layers = [(one.name, one.instructions / (one.macs or 1), one.limit) for one in self.layers]
        models = [(f"{one.name}, loading", one.load_instructions, one.load_limit) for one in self.models]
        heads = [(f"{one.head}, {one.cost}", one.value, one.limit) for one in self.heads]
        return [
            f"{name}: {value:,.5g}, its limit is {limit:,.5g}"
            for name, value, limit in [*layers, *models, *heads]
            if limit is not None and value > limit
        ]

    def tables(self) -> list[Table]:
        """For people."""
        layers = _table("instructions on rv32imc", "layer", "MACs", "instructions", "per MAC", "limit")
        for layer in self.layers:
            per_mac = f"{layer.instructions / layer.macs:.2f}" if layer.macs else ""
            limit = f"{layer.limit:.1f}" if layer.limit else ""
            layers.add_row(layer.name, f"{layer.macs:,}", f"{layer.instructions:,}", per_mac, limit)
        models = _table(
            "whole models", "model", "MACs", "instructions", "per MAC", "arena (B)", "to load", "limit"
        )
        for model in self.models:
            macs, instructions, arena, load = (
                f"{count:,}"
                for count in (model.macs, model.instructions, model.arena_bytes, model.load_instructions)
            )
            limit = f"{model.load_limit:,}" if model.load_limit else ""
            per_mac = f"{model.instructions / model.macs:.2f}"
            models.add_row(model.name, macs, instructions, per_mac, arena, load, limit)
        heads = _table("heads of 64 features and 10 classes", "head, cost", "value", "limit")
        for head in self.heads:
            value = f"{head.value:,.5g}" if head.value < 1e5 else f"{head.value:,.0f}"
            limit = "" if head.limit is None else f"{head.limit:,.5g}"
            heads.add_row(f"{head.head}, {head.cost}", value, limit)
        code = _table("code and constants", "program", "bytes")
        for size in self.code:
            code.add_row(size.name, f"{size.code_bytes:,}")
        return [layers, models, heads, code]


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for header in others:
        table.add_column(header, justify="right")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write-baseline",
        action="store_true",
        help="add new rows to the baseline, and lower those that fell",
    )
    write_baseline = parser.parse_args().write_baseline
    # On a narrower one rich would cut numbers off.
    console = Console(width=max(100, Console().width))
    report = Report(measure_layers(), measure_models(), measure_heads(), code_sizes())
    for table in report.tables():
        console.print(table)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(asdict(report), indent=2) + "\n")
    console.print(f"written to {REPORT.relative_to(ROOT)}")
    if write_baseline:
        device_baseline.write(report.costs())
    complaints = report.over_limits() + device_baseline.complaints(report.costs(), device_baseline.read())
    for complaint in complaints:
        console.print(f"[bold]too much: {complaint}[/bold]", soft_wrap=True)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
