"""What int8 keeps of the zoo's models, and what each correction of `to_nano` gains: `just bench-corrections`.

The models have random weights; their batch norms have the exact statistics of the calibration data, in one
forward pass (`tests/models/zoo.py`), and with --decades scales that spread over so many decades. Figures are
the SQNR of the whole output in dB, on the first 32 samples of the calibration data, as means over the seeds:
up to --seeds, as many as take no more than some seconds. Another seed changes a figure by 1 dB, that of a
model of two outputs (mobilenet_v1_025) by 10: compare columns, not models. Running statistics that lag change
it more: after 30 batches of 32 mobilenet_v1_025 keeps 22 to 31 dB, and 0 to 14 with the exact ones. The whole
zoo takes 4 minutes on one core.

Columns: without corrections (`correct=False`); with biases corrected; with channels equalized; with both, the
default; the default with the method "auto". Ends with status 1 if the default keeps 0.5 dB less than no
corrections, in the mean over the models.

--search shows instead what limits models, by default those with a target of their own, on 32 samples of the
first seed (3 minutes on one core): the default in int8; weights of 8 bits alone; values of 8 bits alone, in
the ranges of min-max, in those that a search finds (`activation_search.py`), and in a range of each channel
with the least squared error. The last column is the number of bits of values alone, in the ranges of min-max,
that reach the target.
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
from activation_search import Reached, search  # noqa: E402
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
#: Of CPU time: a model that has taken so long is not measured with another seed.
SECONDS = 5.0
LARGEST_LOSS = 0.5
#: In dB, by model.
TARGETS = {"mobilenet_v2": 12.0, "mcunet": 14.0, "mobilenet_v1_025": 24.0}


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


def sqnr(found: Calibrated, x: Tensor, *, bias: bool) -> float:
    """The SQNR in dB of the first output in int8, with biases corrected or not."""
    quantized = quantize(found.graph, calibrated(found.ranges), found.means if bias else {})
    return compare_outputs(found.graph, quantized, Batches(found.graph, x[:EVALUATED]))[0].sqnr


def measure(name: str, seed: int, samples: int, decades: float) -> tuple[list[float], list[float]]:
    """The figures of the columns, and the seconds of calibration without and with the corrections."""
    model, x = make(name, seed, samples, decades)
    graph = optimize(capture(model, x[:2]))
    start = time.process_time()
    calibrate(graph, x)
    plain = time.process_time()
    found = observe(graph, x, correct=True)
    observed = Calibrated(graph, found.ranges(graph), found.means(graph))
    equalized = equalize(observed, found.extremes(graph))
    corrected = time.process_time()

    figures = [sqnr(one, x, bias=bias) for one in (observed, equalized) for bias in (False, True)]
    auto = observe(graph, x, "auto", correct=True)
    figures.append(
        sqnr(
            equalize(Calibrated(graph, auto.ranges(graph), auto.means(graph)), auto.extremes(graph)),
            x,
            bias=True,
        )
    )
    return figures, [plain - start, corrected - plain]


def limits(name: str, samples: int, decades: float, target: float) -> tuple[float, Reached]:
    """The columns of --search: the SQNR of the default, and what parts of it reach."""
    model, x = make(name, 0, samples, decades)
    graph = optimize(capture(model, x[:2]))
    found = observe(graph, x, correct=True)
    default = equalize(Calibrated(graph, found.ranges(graph), found.means(graph)), found.extremes(graph))
    reached = search(default, x, target, lambda line: print(name, line, file=sys.stderr, flush=True))
    return sqnr(default, x, bias=True), reached


def print_limits(names: list[str], samples: int, decades: float, target: float) -> None:
    """Prints the table of --search."""
    table = Table(
        *("model", "int8", "weights", "values", "values, searched", "values, by channel", "bits of values"),
        title="SQNR in dB",
    )
    for name in names:
        wanted = TARGETS.get(name, target)
        default, reached = limits(name, samples, decades, wanted)
        figures = (default, reached.weights, reached.minmax, reached.searched, reached.by_channel)
        bits = "more than 16" if reached.bits is None else str(reached.bits)
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), f"{bits} for {wanted:g} dB")
    Console(width=150).print(table)


def runs_of(name: str, given: argparse.Namespace) -> list[tuple[list[float], list[float]]]:
    """Measures a model with one seed after the other."""
    start, runs = time.process_time(), []
    for seed in range(given.seeds):
        if seed and time.process_time() - start > SECONDS:
            break
        runs.append(measure(name, seed, given.samples, given.decades))
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", help="names in tests/models/zoo.py")
    parser.add_argument("--samples", type=int, default=128, help="for calibration")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decades", type=float, default=0.0, help="that batch norm scales spread over")
    parser.add_argument("--search", action="store_true", help="what weights and values of 8 bits can reach")
    parser.add_argument(
        "--target", type=float, default=20.0, help="in dB, of models without one of their own"
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.search:
        print_limits(given.models or list(TARGETS), given.samples, given.decades, given.target)
        return 0
    table = Table("model", *COLUMNS, "seeds", "calibration (s)", title="SQNR in dB")
    report: dict[str, dict[str, float]] = {}
    gains = []
    for name in given.models or ZOO:
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
