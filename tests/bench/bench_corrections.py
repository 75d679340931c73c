"""What int8 keeps of the zoo's models, and what each correction of `to_nano` gains: `just bench-corrections`.

The models have random weights; their batch norms have the exact statistics of the calibration data, in one
forward pass (`tests/models/zoo.py`), and with --decades scales that spread over so many decades. Figures are
the SQNR of the whole output in dB, on the first 32 samples of the calibration data, as means over the seeds:
up to --seeds, as many as take no more than some seconds.

Columns: without corrections (`correct=False`); with biases corrected; with channels equalized; with both, the
default; the default with the method "auto". Ends with status 1 if the default keeps 0.5 dB less than no
corrections, in the mean over the models.

--search shows instead what 8-bit activations can reach, on 32 samples of the first seed: the weights are
float, and values are rounded to 8 bits in their ranges; in the ranges that a search finds
(`activation_search.py`); with a range of each channel with the least squared error. The last column is the
number of bits with which min-max ranges reach the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from activation_search import search  # noqa: E402
from models.zoo import ZOO  # type: ignore[import-not-found]  # noqa: E402
from networks import inputs  # type: ignore[import-not-found]  # noqa: E402
from torch_nano.calibration.batches import Batches  # noqa: E402
from torch_nano.calibration.calibrate import calibrate, observe  # noqa: E402
from torch_nano.calibration.quantize import quantize  # noqa: E402
from torch_nano.calibration.ranges import calibrated  # noqa: E402
from torch_nano.capture.capture import capture  # noqa: E402
from torch_nano.capture.passes import optimize  # noqa: E402
from torch_nano.comparison.measure import compare_outputs  # noqa: E402
from torch_nano.equalization.equalize import Calibrated, equalize  # noqa: E402

REPORT = ROOT / "build/bench/corrections.json"
COLUMNS = ("none", "bias", "equalized", "both", "auto")
#: Samples of which the figures are.
EVALUATED = 32
#: A model that has taken so long is not measured with another seed.
SECONDS = 5.0
LARGEST_LOSS = 0.5


def make(name: str, seed: int, samples: int, decades: float) -> tuple[nn.Module, Tensor]:
    """A model and its calibration data."""
    function, shape = ZOO[name]
    torch.manual_seed(seed)
    model = function()
    x = inputs(shape, samples, seed=seed + 1)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            # None: the running statistics are those of all data so far.
            module.momentum = None
            with torch.no_grad():
                module.weight.mul_(10 ** (decades * (torch.rand(len(module.weight)) - 0.5)))
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


def measure(name: str, seed: int, samples: int, decades: float) -> tuple[list[float], list[float]]:
    """The figures of the columns, and the seconds of calibration without and with the corrections."""
    model, x = make(name, seed, samples, decades)
    graph = optimize(capture(model, x[:2]))
    start = time.perf_counter()
    calibrate(graph, x)
    plain = time.perf_counter()
    found = observe(graph, x, correct=True)
    observed = Calibrated(graph, found.ranges(graph), found.means(graph))
    equalized = equalize(observed, found.extremes(graph))
    corrected = time.perf_counter()

    def sqnr(calibration: Calibrated, *, bias: bool) -> float:
        quantized = quantize(
            calibration.graph, calibrated(calibration.ranges), calibration.means if bias else {}
        )
        return compare_outputs(calibration.graph, quantized, Batches(graph, x[:EVALUATED]))[0].sqnr

    figures = [sqnr(one, bias=bias) for one in (observed, equalized) for bias in (False, True)]
    auto = observe(graph, x, "auto", correct=True)
    figures.append(
        sqnr(
            equalize(Calibrated(graph, auto.ranges(graph), auto.means(graph)), auto.extremes(graph)),
            bias=True,
        )
    )
    return figures, [plain - start, corrected - plain]


def limits(name: str, samples: int, decades: float, target: float) -> list[float | int | None]:
    """The columns of --search."""
    model, x = make(name, 0, samples, decades)
    graph = optimize(capture(model, x[:2]))
    ranges = calibrate(graph, x)
    reached = search(graph, ranges, x, target, lambda line: print(name, line, file=sys.stderr, flush=True))
    return [reached.minmax, reached.searched, reached.by_channel, reached.bits]


def print_limits(names: list[str], samples: int, decades: float, target: float) -> None:
    """Prints the table of --search."""
    table = Table("model", "min-max", "searched", "by channel", f"bits for {target:g} dB", title="SQNR in dB")
    for name in names:
        *figures, bits = limits(name, samples, decades, target)
        table.add_row(
            name, *(f"{figure:.2f}" for figure in figures), "more than 16" if bits is None else str(bits)
        )
    Console(width=150).print(table)


def runs_of(name: str, given: argparse.Namespace) -> list[tuple[list[float], list[float]]]:
    """Measures a model with one seed after the other."""
    start, runs = time.perf_counter(), []
    for seed in range(given.seeds):
        if seed and time.perf_counter() - start > SECONDS:
            break
        runs.append(measure(name, seed, given.samples, given.decades))
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ZOO), help="names in tests/models/zoo.py")
    parser.add_argument("--samples", type=int, default=128, help="for calibration")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decades", type=float, default=0.0, help="that batch norm scales spread over")
    parser.add_argument("--search", action="store_true", help="what 8-bit activations can reach")
    parser.add_argument("--target", type=float, default=12.0, help="of --search, in dB")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.search:
        print_limits(given.models, given.samples, given.decades, given.target)
        return 0
    table = Table("model", *COLUMNS, "seeds", "calibration (s)", title="SQNR in dB")
    report: dict[str, dict[str, float]] = {}
    gains = []
    for name in given.models:
        runs = runs_of(name, given)
        means = [statistics.fmean(column) for column in zip(*(run[0] for run in runs), strict=True)]
        plain, corrected = (
            statistics.fmean(column) for column in zip(*(run[1] for run in runs), strict=True)
        )
        report[name] = dict(zip(COLUMNS, means, strict=True)) | {"seconds": plain, "corrected": corrected}
        gains.append(means[3] - means[0])
        table.add_row(
            name, *(f"{mean:.2f}" for mean in means), str(len(runs)), f"{plain:.2f} -> {corrected:.2f}"
        )
        print(name, *(f"{mean:.2f}" for mean in means), file=sys.stderr, flush=True)
    Console(width=150).print(table)
    gain = statistics.fmean(gains)
    print(f"corrections gain {gain:+.2f} dB in the mean over the models")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return int(gain < -LARGEST_LOSS)


if __name__ == "__main__":
    sys.exit(main())
