"""What trained networks lose in int8, by `to_nano` alone: `just bench-accuracy`.

Three small networks, trained in float on real data: scikit-learn's digits, MNIST and a watch's recordings.
Each is converted as it is, and with the scales of its channels skewed over three decades, which changes
nothing in float. Accuracy is that on samples, or of people, that neither training nor calibration has seen.
Ends with status 1 if one loses more than its limit.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch_nano as tn
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python-plugin/examples"))

import learning_sets  # noqa: E402
import watch  # noqa: E402
from accuracy_networks import NETWORKS, Network, skew  # noqa: E402
from training import reproducible  # noqa: E402

FOLDER = ROOT / "build/bench"
#: Largest losses of accuracy, in points.
LARGEST_LOSS, LARGEST_SKEWED_LOSS = 0.3, 0.5
SEED, CALIBRATION, BATCH = 0, 512, 32


@dataclass(frozen=True)
class Task:
    """Samples to learn from and samples to score, as (x, class)."""

    learnt: tuple[Tensor, Tensor]
    scored: tuple[Tensor, Tensor]
    classes: int
    #: Of the first layer.
    stride: int
    epochs: int


def _images(data: learning_sets.DataSet, stride: int, epochs: int) -> Task:
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(data.x)))
    x, label = data.x[order], torch.from_numpy(data.label)[order]
    half = len(x) // 2
    return Task((x[:half], label[:half]), (x[half:], label[half:]), 10, stride, epochs)


def _watch() -> Task:
    windows = watch.load_windows()
    parts = watch.split(windows, watch.FOLDS[0])
    x = watch.normalise(windows.x, watch.axis_range(windows.x[parts.train]))
    label = torch.from_numpy(windows.exercise)
    learnt, scored = parts.train[::2], parts.test
    return Task((x[learnt], label[learnt]), (x[scored], label[scored]), len(watch.EXERCISES), 2, 6)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": lambda: _images(learning_sets.digits(), 1, 20),
    "mnist_5k": lambda: _images(learning_sets.mnist_5k(), 2, 10),
    "watch": _watch,
}


def trained(name: str, make: Callable[[int, int, int, int], Network], task: Task) -> Network:
    """A network, trained on a task; kept in a file that is as old as its sources."""
    x, label = task.learnt
    with reproducible(SEED):
        network = make(x.dim() - 2, x.shape[1], task.classes, task.stride)
        sources = [Path(__file__), Path(__file__).with_name("accuracy_networks.py")]
        key = zlib.crc32(b"".join(source.read_bytes() for source in sources))
        file = FOLDER / f"accuracy/{name}-{key:08x}.pt"
        if file.exists():
            network.load_state_dict(torch.load(file, weights_only=True))
            return network.eval()
        batches = len(x) // BATCH
        optimizer = torch.optim.AdamW(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=task.epochs * batches)
        network.train()
        for _ in track(range(task.epochs), description=f"training {name}", transient=True):
            for batch in torch.randperm(len(x))[: batches * BATCH].view(batches, BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[batch]), label[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), file)
    return network.eval()


def accuracy(model: nn.Module, samples: tuple[Tensor, Tensor]) -> float:
    """What a model recognises, in %."""
    x, label = samples
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in torch.split(x, 256)])
    return 100.0 * float((found == label).float().mean())


def in_int8(model: nn.Module, task: Task) -> float:
    """What a model recognises in int8, calibrated with some of what it has learnt from, in %."""
    x = task.learnt[0][:CALIBRATION]
    nano = tn.to_nano(model, x[:2], calibrate=x, head=None, check=False)
    return accuracy(nano, task.scored)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help=f"of {', '.join(TASKS)}; all if none")
    table = Table("task", "network", "float %", "int8 %", "loss", "limit", "skewed %", "loss", "limit")
    report, exceeded = {}, []
    for task_name in parser.parse_args().tasks:
        task = TASKS[task_name]()
        for network_name, make in NETWORKS.items():
            name = f"{task_name}-{network_name}"
            network = trained(name, make, task)
            skewed = copy.deepcopy(network)
            skew(skewed, SEED)
            figures = {
                "float": accuracy(network, task.scored),
                "int8": in_int8(network, task),
                "float, skewed": accuracy(skewed, task.scored),
                "int8, skewed": in_int8(skewed, task),
            }
            report[name] = figures
            loss = figures["float"] - figures["int8"]
            skewed_loss = figures["float, skewed"] - figures["int8, skewed"]
            table.add_row(
                task_name,
                network_name,
                f"{figures['float']:.2f}",
                f"{figures['int8']:.2f}",
                f"{loss:.2f}",
                f"{LARGEST_LOSS}",
                f"{figures['int8, skewed']:.2f}",
                f"{skewed_loss:.2f}",
                f"{LARGEST_SKEWED_LOSS}",
            )
            exceeded += [name] if loss > LARGEST_LOSS else []
            exceeded += [f"{name}, skewed"] if skewed_loss > LARGEST_SKEWED_LOSS else []
    Console().print(table)
    file = FOLDER / "accuracy.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")
    if exceeded:
        print(f"over the limit: {', '.join(exceeded)}", file=sys.stderr)
    return int(bool(exceeded))


if __name__ == "__main__":
    sys.exit(main())
