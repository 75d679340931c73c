"""What whole models cost on the emulated rv32imc board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch_nano as tn
from device_board import BOARD_PROGRAM, CHIP, SEED, Cycles, code_bytes, cycles_of, measure, to_nano
from mlperf_tiny import ARCHITECTURES
from mnist import DIGITS, HIDDEN
from torch import nn
from torch_nano.chips import chip
from watch import AXES, WINDOW, WatchNet

#: Of the deepest model.
NODES = 320
DEEPEST = f"nodes_{NODES}"
#: The most instructions of loading: of many nodes, and of many weights.
LOAD_LIMITS = {DEEPEST: 10_000_000, "ad01": 5_000_000}
#: The most instructions and cycles of one run.
LIMITS = {
    "resnet8": (20_000_000, 25_000_000),
    "ds_cnn": (7_700_000, 9_000_000),
    "mobilenet_v1_025": (21_000_000, 26_000_000),
    "ad01": (800_000, 3_200_000),
    "watch": (600_000, None),
}


@dataclass(frozen=True)
class LayerOfModel(Cycles):
    """What one layer of a model cost; a trainable head is the last."""

    kernel: str
    module: str
    macs: int
    instructions: int
    #: Lines of the flash that its constants take: fewer cannot be read, unless they stay in the cache.
    constant_lines: int
    #: What the image writer estimates; None of a trainable head.
    estimated_instructions: int | None
    estimated_cycles: int | None


@dataclass(frozen=True)
class ModelResult(Cycles):
    """What a model cost; `arena_bytes` has inputs, outputs and scratch memory in it."""

    name: str
    macs: int
    #: Of one run.
    instructions: int
    layers: list[LayerOfModel]
    #: Of all layers in flash.
    constant_lines: int
    arena_bytes: int
    #: Of the board's program, which has all operators and trainers.
    code_bytes: int
    #: From the start of the board to its first request.
    load_instructions: int
    #: What loading may take, None if it has no limit.
    load_limit: int | None = None
    #: What one run may take.
    instruction_limit: int | None = None
    cycle_limit: int | None = None


def measure_models() -> list[ModelResult]:
    """All models; what their weights are does not matter here."""
    torch.manual_seed(SEED)
    return [_measure(*model) for model in _models()]


def _models() -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, module and shape of its input. The stories' models have heads."""
    watch = WatchNet()
    tn.freeze(watch, "features")
    yield "watch", watch, (len(AXES), WINDOW)
    digits = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIGITS))
    tn.freeze(digits, "1")
    yield "digits", digits, (1, 28, 28)
    for name, (make, shape) in ARCHITECTURES.items():
        yield name, make(), shape
    pairs = [layer for _ in range(NODES // 2) for layer in (nn.Conv2d(4, 4, 1), nn.Sigmoid())]
    yield DEEPEST, nn.Sequential(*pairs), (4, 2, 2)


def _measure(name: str, module: nn.Module, shape: tuple[int, ...]) -> ModelResult:
    nano = to_nano(module, shape)
    cost = measure(nano)
    summary, code = nano.summary(kernels=True), code_bytes(BOARD_PROGRAM)
    estimates = [next(one for one in layer if one.chosen) for layer in summary.kernels or ()]
    line = chip(CHIP).cache.line
    assert line is not None, "a chip with known costs has a known cache"
    layers = [
        LayerOfModel(
            kernel=row.kernel,
            module=row.module_path,
            macs=row.macs,
            instructions=made.counts.instructions,
            constant_lines=-(-row.weight_bytes // line) if row.memory == "flash" else 0,
            estimated_instructions=None if estimate is None else estimate.instructions,
            estimated_cycles=None if estimate is None else estimate.cycles,
            **cycles_of(made.counts),
        )
        for row, made, estimate in zip_longest(summary.layers, cost.profile.layers, estimates)
    ]
    most = LIMITS.get(name, (None, None))
    return ModelResult(
        name=name,
        macs=summary.macs,
        instructions=cost.run,
        layers=layers,
        constant_lines=sum(layer.constant_lines for layer in layers),
        arena_bytes=nano.arena_bytes,
        code_bytes=code,
        load_instructions=cost.load,
        load_limit=LOAD_LIMITS.get(name),
        instruction_limit=most[0],
        cycle_limit=most[1],
        **cycles_of(cost.profile.total),
    )
