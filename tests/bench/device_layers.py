"""What single layers cost on the emulated rv32imc board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from device_board import SEED, Cycles, cycles_of, measure, to_nano
from torch import Tensor, nn
from torch_nano.ir.precision import LayerDtype

#: Instructions per multiply-accumulate that nothing below may exceed.
CONVOLUTION_LIMIT, DEPTHWISE_LIMIT = 4.0, 6.0


@dataclass(frozen=True)
class Case:
    """One layer: a module, its input's shape without batch, and its limit if it has one."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    limit: float | None = None
    #: That of the layer, in a module of several.
    operator: str | None = None
    #: Whether the module is run step by step.
    streams: bool = False
    dtype: LayerDtype = "int8"


@dataclass(frozen=True)
class LayerResult(Cycles):
    """What one layer cost."""

    name: str
    macs: int
    instructions: int
    #: From the start of the board to its first request.
    load_instructions: int
    #: Instructions per multiply-accumulate, None if it has no limit.
    limit: float | None


class Call(nn.Module):
    """A function of a value, and modules that it uses."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.used)


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


def depthwise_1d(kernel: int, channels: int) -> Case:
    """A depthwise convolution over 100 steps with the padding that keeps them."""
    layer = nn.Conv1d(channels, channels, kernel, 1, kernel // 2, groups=channels)
    return Case(f"depthwise {kernel} 100x{channels}", layer, (channels, 100), DEPTHWISE_LIMIT)


def grouped(inputs: int, outputs: int, groups: int, side: int, limit: float) -> Case:
    """A 3x3 convolution in groups with the padding that keeps the sides."""
    name = f"conv 3x3 {side}x{side} {inputs}->{outputs} in {groups} groups"
    return Case(name, nn.Conv2d(inputs, outputs, 3, 1, 1, groups=groups), (inputs, side, side), limit)


def linear(inputs: int, outputs: int, limit: float | None) -> Case:
    """A fully connected layer."""
    return Case(f"fully connected {inputs}->{outputs}", nn.Linear(inputs, outputs), (inputs,), limit)


def in_16_bits(case: Case) -> Case:
    """A case of int16 instead of int8."""
    return replace(case, name=f"{case.name}, int16", dtype="int16")


def recurrent(operator: str, module: nn.RNNBase) -> Case:
    """A recurrent layer over 32 steps."""
    name = f"{operator} 32x{module.input_size}->{module.hidden_size}"
    return Case(name, Call(_sequence, module), (32, module.input_size), operator=operator)


def _sequence(x: Tensor, module: nn.Module) -> Tensor:
    sequence: Tensor = module(x)[0]
    return sequence


def transposed(kernel: int, channels: int, side: int, limit: float | None = None, groups: int = 1) -> Case:
    """A transposed convolution that doubles the sides."""
    kind = "conv transpose" if groups == 1 else "depthwise transpose"
    layer = nn.ConvTranspose2d(channels, channels, kernel, 2, kernel // 2 - 1, groups=groups)
    return Case(
        f"{kind} {kernel}x{kernel} {side}x{side}x{channels} stride 2", layer, (channels, side, side), limit
    )


def of_values(operator: str, what: str, function: Callable[..., Tensor], *modules: nn.Module) -> Case:
    """A layer without weights, among others, on an input of 32 channels."""
    return Case(f"{operator} {what}", Call(function, *modules), (32, 16, 16), operator=operator)


def cases() -> list[Case]:
    """The layers."""
    return [
        convolution(3, 16, 16, (32, 32), 1.10),
        convolution(3, 3, 16, (32, 32), 2.0),
        convolution(3, 32, 32, (16, 16), 0.90),
        convolution(3, 16, 32, (32, 32), CONVOLUTION_LIMIT, stride=2),
        convolution(3, 64, 64, (8, 8), CONVOLUTION_LIMIT),
        convolution(1, 16, 16, (32, 32), CONVOLUTION_LIMIT),
        convolution(1, 64, 64, (25, 5), 2.6),
        convolution(1, 128, 128, (6, 6), 2.4),
        depthwise(3, 64, (25, 5), 3.8),
        depthwise(3, 8, (48, 48), 3.6),
        depthwise(3, 16, (48, 48), DEPTHWISE_LIMIT, stride=2),
        depthwise(3, 64, (25, 5), DEPTHWISE_LIMIT, stride=2),
        depthwise(3, 64, (12, 12), DEPTHWISE_LIMIT),
        depthwise(3, 64, (6, 6), DEPTHWISE_LIMIT),
        depthwise(5, 16, (24, 24), DEPTHWISE_LIMIT),
        depthwise(5, 32, (25, 25), DEPTHWISE_LIMIT, stride=2),
        *(depthwise_1d(kernel, channels) for channels in (6, 16) for kernel in (3, 5, 9)),
        Case("depthwise 2x2 24x24x16", nn.Conv2d(16, 16, 2, groups=16), (16, 24, 24), DEPTHWISE_LIMIT),
        Case(
            "depthwise 3x3 24x24x16 dilation 2",
            nn.Conv2d(16, 16, 3, 1, 2, dilation=2, groups=16),
            (16, 24, 24),
            DEPTHWISE_LIMIT,
        ),
        grouped(16, 32, 16, 24, DEPTHWISE_LIMIT),
        grouped(16, 64, 16, 24, DEPTHWISE_LIMIT),
        grouped(16, 16, 8, 16, 5.0),
        grouped(16, 16, 4, 16, 5.0),
        linear(784, 128, CONVOLUTION_LIMIT),
        linear(640, 128, 3.0),
        linear(128, 10, 3.4),
        linear(64, 64, CONVOLUTION_LIMIT),
        linear(64, 16, CONVOLUTION_LIMIT),
        linear(16, 16, CONVOLUTION_LIMIT),
        in_16_bits(convolution(3, 16, 16, (32, 32), CONVOLUTION_LIMIT)),
        in_16_bits(convolution(3, 3, 16, (32, 32), CONVOLUTION_LIMIT)),
        in_16_bits(convolution(3, 64, 64, (8, 8), CONVOLUTION_LIMIT)),
        in_16_bits(convolution(1, 16, 16, (32, 32), CONVOLUTION_LIMIT)),
        in_16_bits(convolution(1, 64, 64, (25, 5), CONVOLUTION_LIMIT)),
        in_16_bits(depthwise(3, 64, (25, 5), DEPTHWISE_LIMIT)),
        in_16_bits(depthwise(3, 16, (48, 48), DEPTHWISE_LIMIT, stride=2)),
        in_16_bits(depthwise(5, 16, (24, 24), DEPTHWISE_LIMIT)),
        in_16_bits(linear(640, 128, CONVOLUTION_LIMIT)),
        in_16_bits(linear(128, 10, CONVOLUTION_LIMIT)),
        in_16_bits(linear(64, 64, CONVOLUTION_LIMIT)),
        transposed(2, 16, 16),
        transposed(4, 16, 16, CONVOLUTION_LIMIT),
        transposed(4, 16, 16, groups=16),
        of_values("add", "16x16x32", lambda x: x + x),
        of_values("add", "16x16x32, over pixels", lambda x: x + x.mean((2, 3), keepdim=True)),
        of_values("sub", "16x16x32", lambda x, one: one(x) - x, nn.Conv2d(32, 32, 1)),
        of_values("mul", "16x16x32", lambda x: x * x),
        of_values("mul", "16x16x32, over pixels", lambda x: x * x.mean((2, 3), keepdim=True)),
        of_values("mul", "16x16x32, over channels", lambda x, one: x * one(x), nn.Conv2d(32, 1, 1)),
        *map(
            in_16_bits,
            [
                of_values("add", "16x16x32", lambda x: x + x),
                of_values("add", "16x16x32, over pixels", lambda x: x + x.mean((2, 3), keepdim=True)),
                of_values("sub", "16x16x32", lambda x, one: one(x) - x, nn.Conv2d(32, 32, 1)),
                of_values("mul", "16x16x32", lambda x: x * x),
                of_values("mul", "16x16x32, over pixels", lambda x: x * x.mean((2, 3), keepdim=True)),
                Case("max pool 2x2 32x32x16", nn.MaxPool2d(2), (16, 32, 32)),
                Case("average pool 8x8x64", nn.AvgPool2d(8), (64, 8, 8)),
                Case("sigmoid 16x16x32", nn.Sigmoid(), (32, 16, 16)),
            ],
        ),
        of_values("concat", "16x16x32, copied", lambda x: torch.cat([x, x], 1)),
        of_values("concat", "16x16x32, in place", _both, nn.Conv2d(32, 16, 1), nn.Conv2d(32, 16, 1)),
        of_values("move", "16x16x32, view", lambda x, one: one(x[:, 16:]), nn.Conv2d(16, 4, 1)),
        of_values(
            "move",
            "16x16x32, permute",
            lambda x, first, second: second(first(x).permute(0, 2, 3, 1)),
            nn.Conv2d(32, 32, 1),
            nn.Conv2d(16, 4, 1),
        ),
        of_values("move", "16x16x32, pad", lambda x: F.pad(x, (1, 1, 1, 1))),
        of_values("move", "16x16x32, upsampling", lambda x: F.interpolate(x, scale_factor=2)),
        of_values(
            "resize_bilinear",
            "16x16x32 to 32x32",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        ),
        Case("history 8+1x32", nn.Conv1d(32, 8, 9), (32, 64), operator="history", streams=True),
        Case("max pool 2x2 32x32x16", nn.MaxPool2d(2), (16, 32, 32)),
        Case("average pool 8x8x64", nn.AvgPool2d(8), (64, 8, 8)),
        Case("sigmoid 16x16x32", nn.Sigmoid(), (32, 16, 16)),
        Case("prelu 16x16x32", nn.PReLU(32), (32, 16, 16)),
        Case("softmax 10", nn.Softmax(1), (10,)),
        Case("masked softmax 16x16", Call(_causal), (16, 16), operator="masked_softmax"),
        of_values("argmax", "16x16x32", lambda x: x.argmax(1)),
        of_values("embedding", "16x16x32", lambda x, rows: rows(x.argmax(1)), nn.Embedding(32, 32)),
        Case("matmul 64x64x64", Call(lambda x: x @ x.mT), (64, 64), CONVOLUTION_LIMIT, operator="matmul"),
        Case("layer norm 32x64", nn.LayerNorm(64), (32, 64), operator="layer_norm"),
        recurrent("gru", nn.GRU(16, 32, batch_first=True)),
        recurrent("lstm", nn.LSTM(16, 32, batch_first=True)),
        recurrent("rnn", nn.RNN(16, 32, batch_first=True)),
        *(convolution(3, 16, outputs, (16, 16), 5.0) for outputs in (1, 3, 5)),
        *(convolution(1, channels, channels, (16, 16), 8.0) for channels in (3, 5, 7)),
        *(convolution(1, channels, channels, (1, 1), 5.0) for channels in (16, 64)),
    ]


def _causal(x: Tensor) -> Tensor:
    return (x + torch.full((16, 16), -torch.inf).triu(1)).softmax(-1)


def _both(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    return torch.cat([first(x), second(x)], 1)


def measure_layers() -> list[LayerResult]:
    """All layers."""
    torch.manual_seed(SEED)
    return [_measure(case) for case in cases()]


def _measure(case: Case) -> LayerResult:
    nano = to_nano(case.module, case.shape, case.dtype)
    if case.streams:
        nano = nano.stream().nano
    cost = measure(nano)
    layers = zip(nano.summary().layers, cost.profile.layers, strict=True)
    ((layer, profiled),) = (one for one in layers if case.operator in (None, one[0].operator))
    counts = profiled.counts
    return LayerResult(
        name=case.name,
        macs=layer.macs,
        instructions=counts.instructions,
        load_instructions=cost.load,
        limit=case.limit,
        **cycles_of(counts),
    )
