"""Runs the whole demo on three seeds and holds its accuracies to their bars: `just bench-demo`.

Ends with status 1 if a mean personal accuracy is below 90 %, or int8 costs more than one point.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
LOWEST_PERSONAL, LARGEST_LOSS = 0.90, 0.01


def accuracies(seed: int) -> dict[str, float]:
    """The accuracies that the demo reports for a seed; the demo itself fails if a byte differs."""
    output = ROOT / f"build/bench/demo-{seed}"
    demo = ROOT / "python-plugin/examples/demo.py"
    subprocess.run([sys.executable, str(demo), "--seed", str(seed), "--output", str(output)], check=True)
    report: dict[str, dict[str, float]] = json.loads((output / "report.json").read_text())
    return report["accuracy"]


def main() -> int:
    names = ("generic_float", "generic_int8", "personal", "logistic")
    table = Table("seed", *names, title="mean accuracies in %", title_justify="left")
    failed = False
    for seed in SEEDS:
        accuracy = accuracies(seed)
        table.add_row(str(seed), *(f"{100 * accuracy[name]:.2f}" for name in names))
        failed |= accuracy["personal"] < LOWEST_PERSONAL
        failed |= abs(accuracy["generic_float"] - accuracy["generic_int8"]) > LARGEST_LOSS
    console = Console()
    console.print(table)
    if failed:
        console.print(
            f"[bold]a personal mean is below {LOWEST_PERSONAL:.0%}, or int8 costs over a point[/bold]"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
