"""How well the last two layers learn in integers, against float on one set of features:
`just bench-last-layers`.

64-128-10 behind the frozen int8 backbones of `just bench-learning`, from PyTorch's initial weights, on the
user's part of digits and MNIST-5k: LayersHead, and float32 SGD with the same weights, rate, schedule and
order of the samples. Prints both and the gap, RAM, and instructions on the emulated rv32imc board; ends with
status 1 if the mean gap of a set, or the RAM, is above its limit.

Then the last convolution and the head on digits of another kind (`last_block.py`), with limits of the gain
over the head alone, of the gap to float and of a session's RAM.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch_nano as tn
from rich.console import Console
from rich.table import Table
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python-plugin/examples"), str(ROOT / "tests")]

import last_block  # noqa: E402
import learning_sets  # noqa: E402
from learning_heads import percent, real, score  # noqa: E402
from learning_sets import CLASSES, FEATURES, Frozen  # noqa: E402
from reference.sgd_head import XORSHIFT_SEED, Xorshift32, visits  # type: ignore[import-not-found]  # noqa: E402
from training import IntArray, reproducible  # noqa: E402

HIDDEN, EPOCHS, HALVE_EVERY, LEARNING_RATE = 128, 20, 4, 0.02
SETTINGS = tn.heads.SGD(LEARNING_RATE, halve_every=HALVE_EVERY)
SETS, SEEDS = ("digits", "mnist_5k"), range(5)
#: Largest loss of accuracy to float, in points, mean over the seeds; most bytes of RAM.
LARGEST_GAP, LARGEST_RAM = 0.5, 32 * 1024
#: Of the last block: least gain over the head alone and largest loss to float, in points, mean over the
#: seeds; most bytes of a session.
LEAST_GAIN, LARGEST_BLOCK_GAP, LARGEST_SESSION = 2.0, 1.0, 96 * 1024


@dataclass(frozen=True)
class Result:
    """What one seed recognises of the scored samples, in %, before and after learning."""

    before: float
    integers: float
    floats: float


def model_of(frozen: Frozen, seed: int) -> nn.Sequential:
    """The backbone and two fresh layers."""
    with reproducible(seed):
        layers = [nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)]
    return nn.Sequential(frozen.backbone, *layers).eval()


def measure(frozen: Frozen, seed: int) -> tuple[Result, tn.NanoModule]:
    """Both trainings, and the model whose head has learnt."""
    model = model_of(frozen, seed)
    x, _ = frozen.factory
    nano = tn.to_nano(model, x[:1], calibrate=x, train_last=2, head=SETTINGS)
    head = nano.head
    assert isinstance(head, tn.heads.LayersHead)
    before = score(head, frozen.scored)
    head.fit(frozen.user.features, frozen.user.label, EPOCHS)
    floats = percent(float_sgd(model, frozen), frozen.scored.label)
    return Result(before, score(head, frozen.scored), floats), nano


def float_sgd(model: nn.Sequential, frozen: Frozen) -> IntArray:
    """The same training in float32; the classes of the scored samples."""
    x, scored = (real(part.features, frozen.quantization) for part in (frozen.user, frozen.scored))
    label = frozen.user.label.numpy()
    trained = [layer for layer in model[1:] if isinstance(layer, nn.Linear)]
    first, second = (layer.weight.detach().numpy().copy() for layer in trained)
    first_bias, second_bias = (layer.bias.detach().numpy().copy() for layer in trained)
    random = Xorshift32(XORSHIFT_SEED)
    for epoch in range(EPOCHS):
        rate = np.float32(LEARNING_RATE / 2 ** (epoch // HALVE_EVERY))
        for index in visits(random, len(x)):
            hidden = np.maximum(first @ x[index] + first_bias, 0)
            logits = second @ hidden + second_bias
            error = np.exp(logits - logits.max())
            error /= error.sum()
            error[label[index]] -= 1
            below = (error @ second) * (hidden > 0)
            second -= np.outer(rate * error, hidden)
            second_bias -= rate * error
            first -= np.outer(rate * below, x[index])
            first_bias -= rate * below
    hidden = np.maximum(scored @ first.T + first_bias, 0)
    return np.asarray((hidden @ second.T + second_bias).argmax(1), np.int64)


def instructions(frozen: Frozen) -> tuple[int, int]:
    """Of a prediction by the two layers, and of a step: the mean of the first epoch over 100 samples."""
    samples, model = 100, model_of(frozen, 0)
    # The features are the input; apart from the two layers, only one ReLU of them is counted.
    alone = nn.Sequential(nn.ReLU(), *model[1:])
    x = torch.from_numpy(real(frozen.user.features[:samples], frozen.quantization))
    nano = tn.to_nano(alone, x, calibrate=x, train_last=2, head=SETTINGS)
    inputs = nano.device_inputs(x)
    with tn.Device(tn.device.QemuBoard(nano.image)) as device:
        forward = device.predict(inputs[0]).ticks
        for sample, label in zip(inputs, frozen.user.label.tolist(), strict=False):
            device.learn(sample, label)
        step = device.train(1) // samples
        assert nano.head is not None
        learnt = nano.features_int8(x)
        assert isinstance(nano.head, tn.heads.SgdHead)
        nano.head.fit(learnt, frozen.user.label[:samples], 1)
        if device.head_state() != nano.head.state():
            raise SystemExit("the board's head is not the host's")
    return forward, step


def transfer(console: Console) -> list[str]:
    """Prints what the last block and the head learn of other digits; returns the limits exceeded."""
    table = Table("seed", "head %", "block + head %", "float %", "gain", "gap", title="Other digits")
    results = [last_block.measure(seed) for seed in SEEDS]
    rows = [
        (own.head, own.block, own.block_in_float, own.block - own.head, own.block_in_float - own.block)
        for own in results
    ]
    mean = np.mean(rows, axis=0)
    for name, row in zip([*map(str, SEEDS), "mean"], [*rows, mean], strict=True):
        table.add_row(name, *(f"{value:.2f}" for value in row))
    console.print(table)
    ram = results[0].ram
    console.print(f"RAM of a session that trains the last block and the head: {ram} B")
    limits = {
        f"gain {mean[3]:.2f}; at least {LEAST_GAIN} points": mean[3] >= LEAST_GAIN,
        f"{mean[4]:.2f} points behind float; {LARGEST_BLOCK_GAP} is the limit": mean[4] <= LARGEST_BLOCK_GAP,
        f"a session of {ram} B; {LARGEST_SESSION} is the limit": ram <= LARGEST_SESSION,
    }
    return [f"the last block: {text}" for text, holds in limits.items() if not holds]


def main() -> int:
    """Measures and prints; 1 if a limit is exceeded."""
    console, missed = Console(), []
    table = Table(
        "set", "seed", "before %", "integers %", "float %", "gap", title="64-128-10, the last two layers"
    )
    ram = 0
    for name in SETS:
        data, results = learning_sets.SETS[name](), []
        for seed in SEEDS:
            frozen = learning_sets.freeze(data, seed)
            result, nano = measure(frozen, seed)
            assert nano.head is not None
            ram = nano.head.ram_bytes
            results.append(result)
            row = (result.before, result.integers, result.floats, result.floats - result.integers)
            table.add_row(name, str(seed), *(f"{value:.2f}" for value in row))
        mean = np.mean([(r.before, r.integers, r.floats, r.floats - r.integers) for r in results], axis=0)
        table.add_row(name, "mean", *(f"{value:.2f}" for value in mean), end_section=True)
        if mean[3] > LARGEST_GAP:
            missed.append(f"{name}: {mean[3]:.2f} points behind float; {LARGEST_GAP} is the limit")
    console.print(table)
    forward, step = instructions(frozen)
    weights = HIDDEN * (FEATURES + 1) + CLASSES * (HIDDEN + 1)
    console.print(f"RAM of the head {ram} B; instructions on rv32imc: a prediction {forward} ", end="")
    console.print(f"({forward / weights:.1f} per weight), a step {step} ({step / weights:.1f} per weight)")
    if ram > LARGEST_RAM:
        missed.append(f"{ram} B of RAM; {LARGEST_RAM} is the limit")
    missed += transfer(console)
    for line in missed:
        console.print(line, style="bold red")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
