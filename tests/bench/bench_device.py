"""Counts what layers and whole models cost on the emulated rv32imc board: `just bench-device`.

Instructions are counted by the board itself and are the same on every run. Prints three tables, writes
build/bench/device.json, and ends with status 1 if a layer or a head costs more than its limit, or its bytes
differ.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch_nano as tn
from device_heads import measure_heads
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "build/bench/device.json"
BOARD_PROGRAM = ROOT / "python-plugin/src/torch_nano/device/virt-rv32imc.elf"
#: Instructions per multiply-accumulate that nothing below may exceed.
CONVOLUTION_LIMIT, DEPTHWISE_LIMIT = 4.0, 6.0
SEED = 0

sys.path.insert(0, str(ROOT / "python-plugin/examples"))


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


@dataclass(frozen=True)
class ModelResult:
    """What one run of a model cost; `code_bytes` is the whole board program, which has all operators."""

    name: str
    macs: int
    instructions: int
    arena_bytes: int
    code_bytes: int


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


def to_nano(module: nn.Module, shape: tuple[int, ...]) -> tn.NanoModule:
    """The module in integers, calibrated on random numbers."""
    example = torch.randn(16, *shape, generator=torch.Generator().manual_seed(SEED))
    return tn.to_nano(module.eval(), example, calibrate=example)


def measure(nano: tn.NanoModule) -> tuple[list[int], int]:
    """Instructions of each layer, and of one whole run; the board's bytes are the host's.

    Raises:
        SystemExit: they are not.
    """
    x = torch.randn(1, *nano.input_shape, generator=torch.Generator().manual_seed(SEED + 1))
    (sent,) = nano.device_inputs(x)
    report = nano.verify("rv32imc", x)
    if not report:
        raise SystemExit(f"{nano.name}: {report}")
    with tn.Device(tn.QemuBoard(nano.image)) as device:
        prediction, profile = device.predict(sent), device.profile(sent)
    return profile, prediction.ticks


def board_code_bytes() -> int:
    """Bytes of code and constants of the emulated board's program: its first loadable segment."""
    program = BOARD_PROGRAM.read_bytes()
    (offset,) = struct.unpack_from("<I", program, 28)
    loaded, _, _, _, size = struct.unpack_from("<5I", program, offset)
    assert loaded == 1, "the first program header is the code"
    return int(size)


def measure_models() -> list[ModelResult]:
    """The two stories' models; what their weights are does not matter here."""
    from mnist import DIGITS, HIDDEN
    from watch import AXES, WINDOW, WatchNet

    torch.manual_seed(SEED)
    watch = WatchNet()
    digits = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIGITS))
    tn.freeze(watch, "features")
    tn.freeze(digits, "1")
    results = []
    for name, model, shape in (("watch", watch, (len(AXES), WINDOW)), ("digits", digits, (1, 28, 28))):
        nano = to_nano(model, shape)
        _, instructions = measure(nano)
        macs, arena = nano.summary().macs, nano.arena_bytes
        results.append(ModelResult(name, macs, instructions, arena, board_code_bytes()))
    return results


def main() -> int:
    console = Console()
    torch.manual_seed(SEED)
    table = Table("layer", title="instructions on rv32imc", title_justify="left")
    for header in ("MACs", "instructions", "per MAC", "limit"):
        table.add_column(header, justify="right")
    layers, exceeded = [], []
    for case in cases():
        nano = to_nano(case.module, case.shape)
        (instructions,), _ = measure(nano)
        macs = nano.summary().macs
        layers.append(LayerResult(case.name, macs, instructions))
        per_mac = f"{instructions / macs:.2f}" if macs else ""
        if case.limit is not None and instructions > case.limit * macs:
            exceeded.append(case.name)
        limit = f"{case.limit:.1f}" if case.limit else ""
        table.add_row(case.name, f"{macs:,}", f"{instructions:,}", per_mac, limit)
    console.print(table)

    models = measure_models()
    table = Table("model", title="whole models, one run", title_justify="left")
    for header in ("MACs", "instructions", "per MAC", "arena (B)", "board program (B)"):
        table.add_column(header, justify="right")
    for model in models:
        numbers = (model.macs, model.instructions, model.arena_bytes, model.code_bytes)
        macs_text, instructions_text, arena, code = (f"{number:,}" for number in numbers)
        table.add_row(
            model.name, macs_text, instructions_text, f"{model.instructions / model.macs:.2f}", arena, code
        )
    console.print(table)

    heads = measure_heads()
    table = Table("head", "cost", title="heads of 64 features and 10 classes", title_justify="left")
    for header in ("value", "limit"):
        table.add_column(header, justify="right")
    for head in heads:
        limit = "" if head.limit is None else f"{head.limit:,.5g}"
        table.add_row(
            head.head, head.cost, f"{head.value:,.5g}" if head.value < 1e5 else f"{head.value:,.0f}", limit
        )
        if head.limit is not None and head.value > head.limit:
            exceeded.append(f"{head.head}, {head.cost}")
    console.print(table)

    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "layers": [asdict(layer) for layer in layers],
        "models": [asdict(model) for model in models],
        "heads": [asdict(head) for head in heads],
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {REPORT.relative_to(ROOT)}")
    for name in exceeded:
        console.print(f"[bold]over its limit: {name}[/bold]")
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
