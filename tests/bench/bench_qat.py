"""What quantization-aware training gains back on a network that int8 hurts: `just bench-qat`.

A narrow, deep convolutional network of a few KB without batch norm, on scikit-learn's 8x8 digits. Its
training goes on for some epochs in float, and from the same weights, for the same steps, through the device's
arithmetic. Compared on digits that none of them saw: float, its int8 model by calibration alone, and the int8
models from the other training. Ends with status 1 if the default, ranges that follow, gains back less than
70 % of what calibration alone lost (means over the seeds), or if an exported model predicts one digit
otherwise than the module that was trained.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import get_args

import torch
import torch_nano as tn
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch_nano.qat.training_ranges import RangeMethod

REPORT = Path(__file__).resolve().parents[2] / "build/bench/qat.json"
LOWEST_REGAINED = 0.70
TRAINING_DIGITS = 1200
CHANNELS, LAYERS = 6, 8
EPOCHS, FURTHER_EPOCHS, LEARNING_RATE = 50, 20, 0.005
#: Of the moving average: the further training has only some hundred steps.
MOMENTUM = 0.1


def digits() -> tuple[Tensor, Tensor]:
    """The digits in a fixed random order: [1797, 1, 8, 8] from 0 to 1, and labels."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return x[order], torch.tensor(labels)[order]


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(LAYERS + 1):
        layers += [nn.Conv2d(CHANNELS if index else 1, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs + 1)

    tn.fit(model, (x, y), epochs=epochs, optimizer=optimizer, scheduler=schedule, seed=seed, progress=False)


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x).argmax(1)  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    x, y = digits()
    train_x, train_y = x[:TRAINING_DIGITS], y[:TRAINING_DIGITS]
    test_x, test_y = x[TRAINING_DIGITS:], y[TRAINING_DIGITS:]
    kinds = ("float", "calibrated", "moving_average", "learned")
    correct: dict[str, list[float]] = {kind: [] for kind in kinds}
    differing, flash_bytes = 0, 0
    table = Table("seed", *kinds, title="accuracy in %")
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = network()
        train(model, train_x, train_y, EPOCHS, seed)
        further = copy.deepcopy(model)
        train(further, train_x, train_y, FURTHER_EPOCHS, seed)
        calibrated = tn.to_nano(further, train_x, calibrate=train_x)
        flash_bytes = calibrated.flash_bytes
        predicted = {"float": predictions(further, test_x), "calibrated": predictions(calibrated, test_x)}
        for ranges in get_args(RangeMethod):
            qat = tn.prepare_qat(model, train_x, calibrate=train_x, ranges=ranges, momentum=MOMENTUM)
            train(qat, train_x, train_y, FURTHER_EPOCHS, seed)
            predicted[ranges] = predictions(qat, test_x)
            differing += int((predictions(qat.to_nano(), test_x) != predicted[ranges]).sum())
        for kind in kinds:
            correct[kind].append(float((predicted[kind] == test_y).double().mean()))
        table.add_row(str(seed), *(f"{100 * correct[kind][-1]:.1f}" for kind in kinds))
    mean = {kind: sum(shares) / seeds for kind, shares in correct.items()}
    table.add_row("mean", *(f"{100 * mean[kind]:.1f}" for kind in kinds))
    lost = mean["float"] - mean["calibrated"]
    regained = {kind: (mean[kind] - mean["calibrated"]) / lost for kind in ("moving_average", "learned")}
    console = Console()
    console.print(table)
    console.print(f"image {flash_bytes:,} B; calibration alone lost {100 * lost:.1f} points")
    console.print("regained of that: " + ", ".join(f"{kind} {share:.2f}" for kind, share in regained.items()))
    console.print(f"predictions that the exported models make otherwise: {differing}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report = {"accuracy": mean, "regained": regained, "differing_predictions": differing}
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return int(regained["moving_average"] < LOWEST_REGAINED or differing > 0)


if __name__ == "__main__":
    sys.exit(main())
