"""What whole models cost on the emulated rv32imc board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch_nano as tn
from device_board import BOARD_PROGRAM, SEED, code_bytes, measure, to_nano
from mlperf_tiny import ARCHITECTURES
from mnist import DIGITS, HIDDEN
from torch import nn
from watch import AXES, WINDOW, WatchNet

#: Of the deepest model.
NODES = 320
DEEPEST = f"nodes_{NODES}"
#: The most instructions of loading: of many nodes, and of many weights.
LOAD_LIMITS = {DEEPEST: 10_000_000, "ad01": 5_000_000}


@dataclass(frozen=True)
class ModelResult:
    """What a model cost; `arena_bytes` has inputs, outputs and scratch memory in it."""

    name: str
    macs: int
    #: Of one run.
    instructions: int
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
    macs, code = nano.summary().macs, code_bytes(BOARD_PROGRAM)
    return ModelResult(name, macs, cost.run, nano.arena_bytes, code, cost.load, LOAD_LIMITS.get(name))
