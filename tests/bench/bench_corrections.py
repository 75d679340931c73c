"""What int8 keeps of the zoo's models, and what each correction of `to_nano` gains: `just bench-corrections`.

The models have random weights; their batch norms have the exact statistics of the calibration data, in one
forward pass (`tests/models/zoo.py`), and with --decades scales that spread over so many decades. Figures are
the SQNR of the whole output in dB, on the calibration data, as means over the seeds.

Columns: without corrections; with biases corrected; with channels equalized; with both, the default; ranges
by the method "auto". The last two show what 8-bit activations can reach: the weights are float, and each
value's numbers are rounded to 8 bits in its range, or in a range of each channel with the least squared
error. Ends with status 1 if the default keeps 0.5 dB less than no corrections, in the mean over the models.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from models.zoo import ZOO  # type: ignore[import-not-found]  # noqa: E402
from networks import inputs  # type: ignore[import-not-found]  # noqa: E402
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor  # noqa: E402
from torch_nano.calibration.batches import Batches  # noqa: E402
from torch_nano.calibration.calibrate import calibrate, observe  # noqa: E402
from torch_nano.calibration.quantize import QuantizedGraph, quantize  # noqa: E402
from torch_nano.calibration.ranges import calibrated  # noqa: E402
from torch_nano.capture.capture import capture  # noqa: E402
from torch_nano.capture.passes import optimize  # noqa: E402
from torch_nano.comparison.measure import compare_outputs  # noqa: E402
from torch_nano.comparison.sums import ErrorSums  # noqa: E402
from torch_nano.equalization.equalize import Calibrated, equalize  # noqa: E402
from torch_nano.ir.graph import Graph, Node  # noqa: E402

REPORT = ROOT / "build/bench/corrections.json"
COLUMNS = ("none", "bias", "equalized", "both", "auto", "float weights", "and channel ranges")
MODELS = (
    *("mobilenet_v2", "mcunet", "mobilenet_v1_025", "mobilenet_v3_small", "shufflenet_v2_x0_5"),
    *("resnet8", "ds_cnn", "ad01", "resnet20", "mixednet", "eegnet", "cnn 1-D", "tcn, chomp"),
    *("u-net, transposed", "transformer", "gru, 1 layers, batch first, last"),
)
#: Shares of a channel's range that the search tries, and numbers of a channel on which it tries them.
SHARES, NUMBERS = 24, 20_000
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
    ranges = calibrate(graph, x)
    plain = time.perf_counter()
    found = observe(graph, x, correct=True)
    observed = Calibrated(graph, found.ranges(graph), found.means(graph))
    equalized = equalize(observed, found.extremes(graph))
    corrected = time.perf_counter()

    def sqnr(calibration: Calibrated, *, bias: bool) -> float:
        quantized = quantize(
            calibration.graph, calibrated(calibration.ranges), calibration.means if bias else {}
        )
        return compare_outputs(calibration.graph, quantized, Batches(graph, x))[0].sqnr

    figures = [sqnr(one, bias=bias) for one in (observed, equalized) for bias in (False, True)]
    auto = calibrate(graph, x, "auto")
    figures.append(sqnr(Calibrated(graph, auto, {}), bias=False))
    quantized = quantize(graph, calibrated(ranges))
    figures.append(activations(graph, x, lambda value, tensor: rounded(quantized, value, tensor)))
    figures.append(activations(graph, x, by_channel(graph, x, quantized)))
    return figures, [plain - start, corrected - plain]


def rounded(quantized: QuantizedGraph, value: str, x: Tensor) -> Tensor:
    """The numbers of a value as its integers hold them."""
    quantization = quantized.graph.quantization(value)
    return dequantize_tensor(quantize_tensor(x, quantization), quantization)


def activations(graph: Graph, x: Tensor, round_value: Callable[[str, Tensor], Tensor]) -> float:
    """The SQNR if only the numbers of values are rounded."""

    def run(node: Node, given: list[Tensor]) -> list[Tensor]:
        outputs = graph.layer(node, given).float_run()
        return [round_value(name, y) for name, y in zip(node.outputs, outputs, strict=True)]

    after = [graph.after_affines(name, t) for name, t in zip(graph.inputs, graph.from_user([x]), strict=True)]
    with torch.no_grad():
        entering = [round_value(name, t) for name, t in zip(graph.inputs, after, strict=True)]
        found, expected = graph.to_user(graph.run(entering, run)), graph.float_run(x)
    sums = ErrorSums()
    sums.observe(expected[0], found[0])
    return sums.sqnr


def by_channel(graph: Graph, x: Tensor, quantized: QuantizedGraph) -> Callable[[str, Tensor], Tensor]:
    """Rounds each channel in the range, searched on calibration data, of the least squared error."""
    bounds: dict[str, tuple[Tensor, Tensor]] = {}

    def search(name: str, tensor: Tensor) -> None:
        if tuple(tensor.shape[1:]) == graph.values[name].shape:
            bounds[name] = searched(tensor)

    with torch.no_grad():
        graph.float_run(x, observe=search)

    def round_value(name: str, tensor: Tensor) -> Tensor:
        if name in graph.inputs or name not in bounds:
            return rounded(quantized, name, tensor)
        low, high = (bound.reshape(1, -1, *[1] * (tensor.dim() - 2)) for bound in bounds[name])
        step = ((high - low) / 255).clamp(min=1e-30)
        return ((tensor / step).round() * step).clamp(low, high)

    return round_value


def searched(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The ranges of the channels of [N, channels, ...] with the least squared error: [channels] each."""
    numbers = tensor.movedim(1, 0).flatten(1)
    numbers = numbers[:, :: -(-numbers.shape[1] // NUMBERS)]
    low, high = numbers.aminmax(dim=1, keepdim=True)
    low, high = low.clamp(max=0), high.clamp(min=0)
    least = torch.full_like(low, torch.inf)
    share = torch.ones_like(low)
    for tried in torch.linspace(1.0, 0.4, SHARES):
        step = ((high - low) * tried / 255).clamp(min=1e-30)
        kept = ((numbers / step).round() * step).clamp(low * tried, high * tried)
        error = (kept - numbers).square().sum(1, keepdim=True)
        share, least = torch.where(error < least, tried, share), torch.minimum(error, least)
    return (low * share)[:, 0], (high * share)[:, 0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="names in tests/models/zoo.py")
    parser.add_argument("--samples", type=int, default=128, help="for calibration")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--decades", type=float, default=0.0, help="that batch norm scales spread over")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    table = Table("model", *COLUMNS, "calibration (s)", title="SQNR in dB")
    report: dict[str, dict[str, float]] = {}
    gains = []
    for name in given.models:
        runs = [measure(name, seed, given.samples, given.decades) for seed in range(given.seeds)]
        means = [statistics.fmean(column) for column in zip(*(run[0] for run in runs), strict=True)]
        plain, corrected = (
            statistics.fmean(column) for column in zip(*(run[1] for run in runs), strict=True)
        )
        report[name] = dict(zip(COLUMNS, means, strict=True)) | {"seconds": plain, "corrected": corrected}
        gains.append(means[3] - means[0])
        table.add_row(name, *(f"{mean:.2f}" for mean in means), f"{plain:.2f} -> {corrected:.2f}")
        print(name, *(f"{mean:.2f}" for mean in means), file=sys.stderr, flush=True)
    Console(width=150).print(table)
    gain = statistics.fmean(gains)
    print(f"corrections gain {gain:+.2f} dB in the mean over the models")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return int(gain < -LARGEST_LOSS)


if __name__ == "__main__":
    sys.exit(main())
