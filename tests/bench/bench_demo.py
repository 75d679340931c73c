"""Runs the whole demo on three seeds and holds its accuracies to their bars, then lets boards on their own
learn the arms of the first seed, from samples and presses: `just bench-demo`.

Ends with status 1 if a mean personal accuracy is below 94.5 % (by gradient descent 90 %), an arm is worse
after learning, int8 costs more than one point, or a board on its own has another head or accuracy than the
demo's gradient descent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python-plugin/examples"))

import board  # noqa: E402
import watch  # noqa: E402
from demo import Settings  # noqa: E402
from personal import ARMS, EPOCHS_ON_BOARD, convert  # noqa: E402
from watch_alone import learn_alone  # noqa: E402

SEEDS = (0, 1, 2)
LOWEST, LARGEST_LOSS = {"personal": 0.945, "personal_sgd": 0.90}, 0.01


def report_of(seed: int) -> dict[str, Any]:
    """What the demo reports for a seed; the demo itself fails if a byte differs."""
    output = ROOT / f"build/bench/demo-{seed}"
    demo = ROOT / "python-plugin/examples/demo.py"
    subprocess.run([sys.executable, str(demo), "--seed", str(seed), "--output", str(output)], check=True)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def boards_on_their_own(report: dict[str, Any]) -> tuple[Table, bool]:
    """The arms of a report, each learnt by a board on its own, and whether all have the demo's accuracy and
    the head that this computer makes.
    """
    table = Table(
        "person", "arm", "windows", "demo", "on its own", "head bytes differing", title_justify="left"
    )
    table.title = f"seed {report['seed']}: accuracies of boards on their own in %"
    rows = {(row["subject"], row["arm"]): row for row in report["person_arms"]}
    windows, equal = watch.load_windows(), True
    for left_out in watch.FOLDS:
        train = watch.split(windows, left_out).train
        x = watch.normalise(windows.x, watch.axis_range(windows.x[train]))
        model = watch.train(x[train], windows.exercise[train], seed=report["seed"], epochs=Settings().epochs)
        nano = convert(model, x[train])
        for subject, arm in watch.person_arms(left_out):
            alone = learn_alone(nano.image, x, windows, subject, arm, epochs=EPOCHS_ON_BOARD)
            own = watch.personal_split(windows, subject, arm).train
            state = board.replay(nano, x[own], windows.exercise[own], EPOCHS_ON_BOARD)
            differing = board.differing_bytes(state, alone.state)
            expected = rows[subject, ARMS[arm]]["personal_sgd"]
            equal &= differing == 0 and alone.personal == expected
            figures = (f"{100 * expected:.2f}", f"{100 * alone.personal:.2f}", str(differing))
            table.add_row(str(subject), ARMS[arm], str(alone.windows), *figures)
    return table, equal


def main() -> int:
    names = ("generic_float", "generic_int8", "personal", "personal_sgd", "logistic")
    table = Table("seed", *names, "worst gain", title="mean accuracies in %", title_justify="left")
    failed = False
    reports = [report_of(seed) for seed in SEEDS]
    for seed, report in zip(SEEDS, reports, strict=True):
        accuracy = report["accuracy"]
        worst = min(report["worst_gain"].values())
        table.add_row(str(seed), *(f"{100 * accuracy[name]:.2f}" for name in names), f"{100 * worst:+.2f}")
        failed |= worst < 0 or any(accuracy[name] < lowest for name, lowest in LOWEST.items())
        failed |= abs(accuracy["generic_float"] - accuracy["generic_int8"]) > LARGEST_LOSS
    console = Console()
    console.print(table)
    if failed:
        console.print(
            f"[bold]a mean is below {LOWEST}, an arm is worse after learning, or int8 costs over a "
            "point[/bold]"
        )
    own, equal = boards_on_their_own(reports[0])
    console.print(own)
    if not equal:
        console.print("[bold]a board on its own has learnt something else than the demo's[/bold]")
    return int(failed or not equal)


if __name__ == "__main__":
    sys.exit(main())
