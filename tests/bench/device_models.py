"""What whole models cost on the emulated rv32imc board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch_nano as tn
from device_board import CHIP, SEED, Cycles, cycles_of, measure, to_nano
from mlperf_tiny import ARCHITECTURES
from mnist import DIGITS, HIDDEN
from torch import nn
from torch_nano.chips import chip
from torch_nano.compile.image import MOST_IN_RAM
from torch_nano.fits.program import program_sizes
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
    "resnet8 for flash": (23_000_000, None),
    "ad01 in RAM": (None, 950_000),
}
#: Lines of constants read in one run, as a share of the lines that they take.
LINES_LIMIT = 1.3
#: Those of which the estimates are tested.
MODELS = ("watch", *ARCHITECTURES)
#: How much larger the image may be than with the smallest constants of each layer, if it is made for flash.
FLASH_LIMIT = 1.01
#: Code of the kernels of one model, in bytes: for speed, and for flash.
CODE_LIMITS = (24 * 1024, 16 * 1024)


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
    image_bytes: int
    #: With the kernels of the smallest constants.
    smallest_image_bytes: int
    #: Of the model's kernels, as linked for an ESP32-C3.
    code_bytes: int
    #: Numbers of all weights.
    weights: int
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
    return list(_measure_all())


def module_of(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module and the shape of its input. The stories' models have heads."""
    if name == "watch":
        watch = WatchNet()
        tn.freeze(watch, "features")
        return watch, (len(AXES), WINDOW)
    if name == "digits":
        digits = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIGITS))
        tn.freeze(digits, "1")
        return digits, (1, 28, 28)
    if name == DEEPEST:
        pairs = [layer for _ in range(NODES // 2) for layer in (nn.Conv2d(4, 4, 1), nn.Sigmoid())]
        return nn.Sequential(*pairs), (4, 2, 2)
    make, shape = ARCHITECTURES[name]
    return make(), shape


def _measure_all() -> Iterator[ModelResult]:
    for name in ("watch", "digits", *ARCHITECTURES, DEEPEST):
        module, shape = module_of(name)
        yield _measure(name, module, to_nano(module, shape))
        if name == "resnet8":
            yield _measure("resnet8 for flash", module, to_nano(module, shape, optimize="flash"))
        if name == "ad01":
            in_ram = to_nano(module, shape, weights_in_ram=MOST_IN_RAM)
            yield _measure("ad01 in RAM", module, in_ram)


def _measure(name: str, module: nn.Module, nano: tn.NanoModule) -> ModelResult:
    cost = measure(nano)
    summary = nano.summary(kernels=True)
    assert summary.kernels is not None
    estimates = [next(one for one in layer if one.chosen) for layer in summary.kernels]
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
    saved = sum(
        next(one for one in layer if one.chosen).constant_bytes - min(one.constant_bytes for one in layer)
        for layer in summary.kernels
    )
    # Without the trainable head.
    kernels = {row.kernel for row, _ in zip(summary.layers, summary.kernels, strict=False)}
    most = LIMITS.get(name, (None, None))
    return ModelResult(
        name=name,
        macs=summary.macs,
        instructions=cost.run,
        layers=layers,
        constant_lines=sum(layer.constant_lines for layer in layers),
        arena_bytes=nano.arena_bytes,
        image_bytes=nano.flash_bytes,
        smallest_image_bytes=nano.flash_bytes - saved,
        code_bytes=program_sizes(kernels, None).code - program_sizes(set(), None).code,
        weights=sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1),
        load_instructions=cost.load,
        load_limit=LOAD_LIMITS.get(name),
        instruction_limit=most[0],
        cycle_limit=most[1],
        **cycles_of(cost.profile.total),
    )
