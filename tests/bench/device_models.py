"""What whole models cost on the emulated rv32imc board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class LayerOfModel(Cycles):
    """What one layer of a model cost; a trainable head is the last."""

    kernel: str
    module: str
    macs: int
    instructions: int
    #: Lines of the flash that its constants take: fewer cannot be read, unless they stay in the cache.
    constant_lines: int


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
    summary, code = nano.summary(), code_bytes(BOARD_PROGRAM)
    line = chip(CHIP).cache.line
    assert line is not None, "a chip with known costs has a known cache"
    layers = [
        LayerOfModel(
            kernel=row.kernel,
            module=row.module_path,
            macs=row.macs,
            instructions=made.counts.instructions,
            constant_lines=-(-row.weight_bytes // line) if row.memory == "flash" else 0,
            **cycles_of(made.counts),
        )
        for row, made in zip(summary.layers, cost.profile.layers, strict=True)
    ]
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
        **cycles_of(cost.profile.total),
    )
