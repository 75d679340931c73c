"""Counts what layers and whole models cost on the emulated rv32imc board: `just bench-device`.

Instructions are counted by the board itself; cycles, and what they are lost to, by the model of the
ESP32-C3, for a run right after another one. All are the same on every run. Prints a table of each kind,
writes build/bench/device.json, also with the layers of the models, and ends with status 1 if something costs
more than its limit or than the committed baseline allows (device_baseline.py), or if the board's bytes are
not the host's.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
# Where the stories' models are.
sys.path.insert(0, str(ROOT / "python-plugin/examples"))

import device_baseline  # noqa: E402
from device_board import CodeSize, Cycles, code_sizes  # noqa: E402
from device_heads import HeadResult, measure_heads  # noqa: E402
from device_layers import LayerResult, measure_layers  # noqa: E402
from device_loading import LIMIT, LoadingResult, measure_loading  # noqa: E402
from device_models import (  # noqa: E402
    CODE_LIMITS,
    DEEPEST,
    FLASH_LIMIT,
    LINES_LIMIT,
    ModelResult,
    measure_models,
)
from device_odd import OddResult, measure_odd  # noqa: E402

#: What the ESP32-C3 would take.
CHIP_COLUMNS = ("cycles", "flash lines", "flash wait (%)", "load-use stalls", "taken branches")
REPORT = ROOT / "build/bench/device.json"


@dataclass(frozen=True)
class Report:
    """All that is measured, as build/bench/device.json has it."""

    layers: list[LayerResult]
    #: All of them, the worst first.
    odd: list[OddResult]
    loading: list[LoadingResult]
    models: list[ModelResult]
    heads: list[HeadResult]
    code: list[CodeSize]

    def costs(self) -> device_baseline.Costs:
        """What the baseline holds."""
        costs: dict[tuple[str, str], float] = {}
        for layer in self.layers:
            costs[layer.name, "instructions"] = layer.instructions
        for weights in self.loading:
            costs[weights.name, "instructions per weight of loading and its checksum"] = weights.instructions
        for model in self.models:
            costs[model.name, "instructions"] = model.instructions
            costs[model.name, "instructions of loading"] = model.load_instructions
            costs[model.name, "arena in bytes"] = model.arena_bytes
            costs[model.name, "cycles on the ESP32-C3"] = model.cycles
        for head in self.heads:
            costs[head.head, head.cost] = head.value
        for size in self.code:
            costs[size.name, "code in bytes"] = size.code_bytes
        return {device_baseline.Key(*key): value for key, value in costs.items()}

    def over_limits(self) -> list[str]:
        """What costs more than its own limit."""
        layers = [(one.name, one.instructions / (one.macs or 1), one.limit) for one in self.layers]
        loading = [
            (f"{one.name}, per weight of loading", one.instructions, one.limit) for one in self.loading
        ]
        models = [(f"{one.name}, loading", one.load_instructions, one.load_limit) for one in self.models]
        runs: list[tuple[str, float, float | None]] = [
            (f"{one.name}, instructions", one.instructions, one.instruction_limit) for one in self.models
        ]
        runs += [(f"{one.name}, cycles", one.cycles, one.cycle_limit) for one in self.models]
        runs += [
            (
                f"{one.name}, lines of constants read per line",
                one.data_lines / one.constant_lines,
                LINES_LIMIT,
            )
            for one in self.models
            if one.constant_lines
        ]
        runs += [
            (f"{one.name}, instructions of loading per weight", one.load_instructions / one.weights, LIMIT)
            for one in self.models
            if one.name != DEEPEST
        ]
        for one in self.models:
            for_flash = one.name.endswith("for flash")
            if for_flash:
                most = FLASH_LIMIT * one.smallest_image_bytes
                runs.append((f"{one.name}, bytes of the image", one.image_bytes, most))
            runs.append((f"{one.name}, bytes of kernels", one.code_bytes, CODE_LIMITS[for_flash]))
        heads = [(f"{one.head}, {one.cost}", one.value, one.limit) for one in self.heads]
        return [
            f"{name}: {value:,.5g}, its limit is {limit:,.5g}"
            for name, value, limit in [*layers, *loading, *models, *runs, *heads]
            if limit is not None and value > limit
        ]

    def tables(self) -> list[Table]:
        """For people."""
        layers = _table(
            "instructions on rv32imc", "layer", "MACs", "instructions", "per MAC", "limit", *CHIP_COLUMNS
        )
        for layer in self.layers:
            per_mac = f"{layer.instructions / layer.macs:.2f}" if layer.macs else ""
            limit = f"{layer.limit:.2f}" if layer.limit else ""
            texts = (f"{layer.macs:,}", f"{layer.instructions:,}", per_mac, limit)
            layers.add_row(layer.name, *texts, *_of_chip(layer))
        loading = _table("instructions per weight of loading", "layer", "all", "checksum", "limit of all")
        for weights in self.loading:
            parts = (weights.instructions, weights.checksum, weights.limit)
            loading.add_row(weights.name, *(f"{part:.1f}" for part in parts))
        models = _table(
            *("whole models", "model", "MACs", "instructions", "per MAC", "arena (B)", "image (B)"),
            *("kernels (B)", "to load", "per weight", *CHIP_COLUMNS, "constants read"),
        )
        for model in self.models:
            sizes = [model.arena_bytes, model.image_bytes, model.code_bytes, model.load_instructions]
            per_mac = f"{model.instructions / model.macs:.2f}"
            per_weight = f"{model.load_instructions / model.weights:.1f}"
            read = f"{model.data_lines / model.constant_lines:.2f} x" if model.constant_lines else ""
            models.add_row(
                *(model.name, f"{model.macs:,}", f"{model.instructions:,}", per_mac),
                *(*(f"{size:,}" for size in sizes), per_weight, *_of_chip(model), read),
            )
        heads = _table("heads of 64 features and 10 classes", "head, cost", "value", "limit")
        for head in self.heads:
            value = f"{head.value:,.5g}" if head.value < 1e5 else f"{head.value:,.0f}"
            limit = "" if head.limit is None else f"{head.limit:,.5g}"
            heads.add_row(f"{head.head}, {head.cost}", value, limit)
        code = _table("code and constants", "program", "bytes")
        for size in self.code:
            code.add_row(size.name, f"{size.code_bytes:,}")
        return [layers, self._odd(), loading, models, self._estimates(), heads, code]

    def _odd(self) -> Table:
        """The worst of the odd layers."""
        table = _table(
            "worst layers of odd channels and widths",
            "layer",
            "MACs or elements",
            "instructions",
            "per one",
            "cycles",
        )
        for one in self.odd[:10]:
            per_one = f"{one.instructions / one.units:.1f}"
            table.add_row(one.name, f"{one.units:,}", f"{one.instructions:,}", per_one, f"{one.cycles:,}")
        return table

    def _estimates(self) -> Table:
        """The layers of models whose estimates, by which kernels are chosen, are furthest from the counts."""
        rows = []
        for model in self.models:
            for layer in model.layers:
                if layer.estimated_instructions is None or layer.estimated_cycles is None:
                    continue
                errors = (
                    100 * (layer.estimated_instructions / layer.instructions - 1),
                    100 * (layer.estimated_cycles / layer.cycles - 1),
                )
                rows.append((max(map(abs, errors)), f"{model.name}: {layer.kernel} {layer.module}", errors))
        table = _table("worst estimates of layers, per cent of the count", "layer", "instructions", "cycles")
        for _, name, errors in sorted(rows, reverse=True)[:15]:
            table.add_row(name, *(f"{error:+.1f}" for error in errors))
        return table


def _of_chip(chip: Cycles) -> list[str]:
    """The columns of the chip."""
    wait = f"{100 * chip.flash_cycles / chip.cycles:.0f}"
    counts = (chip.load_use_stalls, chip.taken_branches)
    return [f"{chip.cycles:,}", f"{chip.flash_lines:,}", wait, *(f"{count:,}" for count in counts)]


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for header in others:
        table.add_column(header, justify="right")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write-baseline",
        action="store_true",
        help="add new rows to the baseline, and lower those that fell",
    )
    write_baseline = parser.parse_args().write_baseline
    # On a narrower one rich would cut numbers off.
    console = Console(width=max(180, Console().width))
    report = Report(
        measure_layers(), measure_odd(), measure_loading(), measure_models(), measure_heads(), code_sizes()
    )
    for table in report.tables():
        console.print(table)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(asdict(report), indent=2) + "\n")
    console.print(f"written to {REPORT.relative_to(ROOT)}")
    if write_baseline:
        device_baseline.write(report.costs())
    complaints = report.over_limits() + device_baseline.complaints(report.costs(), device_baseline.read())
    for complaint in complaints:
        console.print(f"[bold]too much: {complaint}[/bold]", soft_wrap=True)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
