"""What converting a model costs on this machine.

Times are those of the processor with one thread of torch, so that other programs do not count, and two costs
that are compared are taken in turns. Memory is the peak of the resident set of a process of its own (VmHWM)
over its size once everything is imported: so it includes the model, the data and what the allocator keeps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch_nano as tn
import torchvision  # type: ignore[import-untyped]
from mlperf_tiny import ARCHITECTURES
from models.zoo import ZOO  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_nano.calibration.calibrate import observe
from torch_nano.calibration.quantize import quantize
from torch_nano.calibration.ranges import calibrated
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.comparison.check import warn_of_loss
from torch_nano.comparison.samples import KeptSamples
from watch import WatchNet

#: Samples of calibration.
SAMPLES = 128
#: The largest ratio of `to_nano` to torch.export of the same model.
LARGEST_EXPORT_RATIO = 1.5
#: The most seconds of a GRU classifier's conversion.
LONGEST_GRU = 3.0
#: The largest ratios of resnet18's conversion to float passes over the same images in batches of 16.
LARGEST_PASSES_RATIO, LARGEST_MEMORY_RATIO = 2.0, 1.3
#: The largest ratio of the check to the conversion without it.
LARGEST_CHECK_RATIO = 0.15


class GruClassifier(nn.Module):
    """A GRU over windows [N, steps, channels], and the class by its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 20, batch_first=True)
        self.classifier = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.gru(x)[0][:, -1])
        return y


#: The small models, with the shapes of their inputs.
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "watch CNN": (WatchNet, (6, 100)),
    "ds_cnn": ARCHITECTURES["ds_cnn"],
    "resnet8": ARCHITECTURES["resnet8"],
    "GRU": ZOO["gru, 1 layers, batch first, last"],
    "LSTM": ZOO["lstm, 1 layers, batch first, last"],
    "CNN 1-D": ZOO["cnn 1-D"],
    "TCN": ZOO["tcn"],
    "U-Net": ZOO["u-net, transposed"],
}


def convert_costs(rounds: int) -> tuple[dict[str, float], list[str]]:
    """Prints what conversions cost; returns the figures, and which are beyond their limits."""
    table = Table("conversion", "measured", "over", "ratio or s", "limit")
    figures: dict[str, float] = {}
    exceeded = []

    def row(name: str, measured: str, over: str, figure: float, limit: float) -> None:
        figures[name] = figure
        table.add_row(name, measured, over, f"{figure:.2f}", f"{limit:.2f}")
        if figure > limit:
            exceeded.append(f"convert.{name}")

    with one_thread(), warnings.catch_warnings():
        # Of random weights.
        warnings.simplefilter("ignore")
        for name, (make, shape) in SMALL.items():
            model, x = make().eval(), torch.randn(SAMPLES, *shape)
            ours, exported = _in_turns(rounds, _conversion(model, x), _export(model, x))
            row(
                name, f"{ours:.2f} s", f"torch.export {exported:.2f} s", ours / exported, LARGEST_EXPORT_RATIO
            )
        model, x = GruClassifier().eval(), torch.randn(SAMPLES, 60, 6)
        (seconds,) = _in_turns(rounds, _conversion(model, x))
        row("GRU, seconds", f"{seconds:.2f} s", "", seconds, LONGEST_GRU)
        for name, (model, x) in _to_check().items():
            checks, unchecked = _in_turns(rounds, _check(model, x), _conversion(model, x, check=False))
            row(
                f"{name}, check",
                f"{checks:.3f} s",
                f"without it {unchecked:.2f} s",
                checks / unchecked,
                LARGEST_CHECK_RATIO,
            )
    processes = {what: [_in_process(what) for _ in range(2)] for what in ("passes", "to_nano")}
    for unit, limit in (("seconds", LARGEST_PASSES_RATIO), ("bytes", LARGEST_MEMORY_RATIO)):
        passes, ours = (min(figures[unit] for figures in found) for found in processes.values())
        shown = (
            (f"{ours:.1f} s", f"{passes:.1f} s")
            if unit == "seconds"
            else (_megabytes(ours), _megabytes(passes))
        )
        row(f"resnet18 at 224, {unit}", shown[0], f"float passes {shown[1]}", ours / passes, limit)
    Console().print(table)
    return figures, exceeded


def _conversion(model: nn.Module, x: Tensor, *, check: bool = True) -> Callable[[], object]:
    return lambda: tn.to_nano(model, x[:2], calibrate=x, check=check)


def _export(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """torch.export of a model, of any batch size, as for a deployment."""
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    return lambda: torch.export.export(model, (x[:2],), dynamic_shapes=shapes)


def _in_turns(rounds: int, *acts: Callable[[], object]) -> list[float]:
    """The least seconds of the processor for each act, after a turn that does not count: what else runs takes
    its caches, and only adds to it.
    """
    taken: list[list[float]] = [[] for _ in acts]
    for turn in range(rounds + 1):
        for act, seconds in zip(acts, taken, strict=True):
            start = time.process_time()
            act()
            if turn:
                seconds.append(time.process_time() - start)
    return [min(seconds) for seconds in taken]


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread: several wait for each other busily, longest beside other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _to_check() -> dict[str, tuple[nn.Module, Tensor]]:
    """Models with inputs: two that are fine in int8, and two that the check warns of."""
    x = torch.randn(SAMPLES, 3, 64, 64)
    # So many that more than the overhead of calls is measured.
    sequences = torch.randn(8 * SAMPLES, 60, 6)
    outlier = sequences.clone()
    outlier[0] *= 1000.0
    make, shape = ARCHITECTURES["resnet8"]
    return {
        "resnet8": (make().eval(), torch.randn(SAMPLES, *shape)),
        "GRU": (GruClassifier().eval(), sequences),
        "GRU, warned of": (GruClassifier().eval(), outlier),
        "mobilenet_v2, warned of": (torchvision.models.mobilenet_v2(weights=None).eval(), x),
    }


def _check(model: nn.Module, x: Tensor) -> Callable[[], object]:
    graph = optimize(capture(model, x[:2]))
    kept = KeptSamples()
    quantized = quantize(graph, calibrated(observe(graph, x, keep=kept.observe).ranges(graph)))
    return lambda: warn_of_loss(graph, quantized, kept)


def _in_process(what: str) -> dict[str, float]:
    """Seconds and peak bytes of `host_images.py`."""
    program = Path(__file__).with_name("host_images.py")
    answer = subprocess.run([sys.executable, program, what], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB"
