"""What the device's arithmetic costs on this machine: `just bench-host`.

A call of a model with one sample, over what its kernels take, and properties of a large model, in proportion
to checking its image, which happens once.

Conversions, in host_convert.py, and inference against LiteRT and torch's float, in host_inference.py.

One training step against torch's fake quantization: both do forward, backward and SGD on the same graph,
batch norms folded, ranges frozen, in turns: on one thread in time of the processor, on two in time of the
wall. (The other's batch norms are folded once; ours in every step.)

Ends with status 1 if something is over its limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_nano as tn
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize
from torch.ao.quantization.observer import (
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.graph import Graph, Node
from torch_nano.ir.layer import Layer
from torch_nano.ir.rules import Own

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python-plugin/examples"), str(ROOT / "tests")]

from host_calls import call_costs, property_costs  # noqa: E402
from host_convert import convert_costs  # noqa: E402
from host_inference import inference_costs, torch_threads  # noqa: E402
from mlperf_tiny import ARCHITECTURES  # noqa: E402

REPORT = ROOT / "build/bench/host.json"
BATCH = 64
#: The largest share of fake quantization's time.
LIMITS = {"resnet8": 0.60, "ds_cnn": 0.50}
#: The most microseconds that a call of the autoencoder with one sample takes over its kernels.
LARGEST_OVER_KERNELS = 25.0
#: The largest share of checking an image that a property of it takes.
LARGEST_PROPERTY_SHARE = 0.001


class FakeQuantized(nn.Module):
    """A graph in float with torch's fake quantization on weights and values, as its QAT places it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.weights = nn.ParameterDict({_key(name): tensor for name, tensor in graph.parameters.items()})
        self.weight_quantizers = nn.ModuleDict()
        self.value_quantizers = nn.ModuleDict({name: _value_quantizer() for name in graph.inputs})
        for node in graph.nodes:
            if "weight" in node.parameters:
                self.weight_quantizers[node.name] = _weight_quantizer()
            if node.operator.rules == (Own(),):
                self.value_quantizers[node.name] = _value_quantizer()

    def forward(self, x: Tensor) -> Tensor:
        quantized: Tensor = self.value_quantizers[self.graph.inputs[0]](x)
        (y,) = self.graph.run([quantized], self._node)
        return y

    def _node(self, node: Node, inputs: list[Tensor]) -> list[Tensor]:
        parameters = {role: self.weights[_key(name)] for role, name in node.parameters.items()}
        if node.name in self.weight_quantizers:
            parameters["weight"] = self.weight_quantizers[node.name](parameters["weight"])
        (y,) = Layer(node.operator, inputs, parameters).float_run()
        return [self.value_quantizers[node.name](y) if node.name in self.value_quantizers else y]


def _key(name: str) -> str:
    return name.replace(".", "_")


def _weight_quantizer() -> nn.Module:
    quantizer: nn.Module = FakeQuantize(  # type: ignore[no-untyped-call]
        MovingAveragePerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    return quantizer


def _value_quantizer() -> nn.Module:
    quantizer: nn.Module = FakeQuantize(  # type: ignore[no-untyped-call]
        MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_affine,
    )
    return quantizer


def fake_quantized(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with fake quantization, observers frozen."""
    fake = FakeQuantized(optimize(capture(model, x)))
    fake(x)
    for module in fake.modules():
        if isinstance(module, FakeQuantize):
            module.disable_observer()
    return fake


def through_the_device(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with the device's arithmetic, ranges frozen."""
    qat = tn.prepare_qat(model, x, calibrate=x)
    tn.qat.freeze_ranges(qat)
    return qat


def step_of(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One training step of a model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    targets = torch.arange(len(x)) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def measure(
    steps: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """The median seconds of each step, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 3):
        for name, step in steps.items():
            start = clock()
            step()
            if turn >= 3:
                seconds[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="steps of each kind that are measured")
    parser.add_argument(
        "--conversions", type=int, default=5, help="conversions of each kind that are measured"
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.manual_seed(0)
    report, exceeded = calls()
    report["convert"], beyond = convert_costs(arguments.conversions)
    exceeded += beyond
    report["inference"], beyond = inference_costs(rounds // 2)
    exceeded += beyond
    ratios, slow = training_steps(rounds)
    report["qat_step_vs_fake_quant"] = ratios
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {REPORT.relative_to(Path.cwd()) if REPORT.is_relative_to(Path.cwd()) else REPORT}")
    exceeded += slow
    if exceeded:
        print(f"over the limit: {', '.join(exceeded)}", file=sys.stderr)
    return int(bool(exceeded))


def calls() -> tuple[dict[str, object], list[str]]:
    """Prints what a call and properties cost; returns the figures, and what is beyond its limit."""
    costs = call_costs()
    parts = (costs.call, costs.run, costs.kernels, costs.over_kernels)
    table = Table("model", "call us", "run us", "kernels us", "call over kernels us", "limit us")
    table.add_row("autoencoder", *(f"{1e6 * part:.1f}" for part in parts), f"{LARGEST_OVER_KERNELS:.0f}")
    properties, check = property_costs()
    shares = {name: taken / check for name, taken in properties.items()}
    Console().print(table)
    table = Table("resnet18", "us", "share of a check", "limit")
    table.add_row("check", f"{1e6 * check:.0f}", "", "")
    for name, taken in properties.items():
        table.add_row(name, f"{1e6 * taken:.2f}", f"{shares[name]:.6f}", f"{LARGEST_PROPERTY_SHARE}")
    Console().print(table)
    exceeded = [f"resnet18.{name}" for name, share in shares.items() if share > LARGEST_PROPERTY_SHARE]
    over_kernels = 1e6 * costs.over_kernels
    if over_kernels > LARGEST_OVER_KERNELS:
        exceeded.append("autoencoder")
    report = {"autoencoder_us_over_kernels": over_kernels, "resnet18_property_vs_check": shares}
    return report, exceeded


def training_steps(rounds: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Prints what training steps cost; returns ratios by model and threads, and which are over limits."""
    table = Table("model", "threads", "float ms", "fake-quant ms", "torch-nano ms", "ratio", "limit")
    ratios: dict[str, dict[str, float]] = {}
    exceeded = []
    for name, limit in LIMITS.items():
        make, shape = ARCHITECTURES[name]
        model, x = make(), torch.randn(BATCH, *shape)
        kinds = {
            "float": step_of(model, x),
            "fake": step_of(fake_quantized(model, x), x),
            "ours": step_of(through_the_device(model, x), x),
        }
        ratios[name] = {}
        for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
            with torch_threads(threads):
                taken = measure(kinds, rounds, clock)
            ratio = taken["ours"] / taken["fake"]
            ratios[name][str(threads)] = ratio
            milliseconds = [f"{1000 * taken[kind]:.1f}" for kind in kinds]
            table.add_row(name, str(threads), *milliseconds, f"{ratio:.3f}", f"{limit:.2f}")
            if ratio > limit:
                exceeded.append(f"{name}'s step, threads {threads}")
    Console().print(table)
    return ratios, exceeded


if __name__ == "__main__":
    sys.exit(main())
