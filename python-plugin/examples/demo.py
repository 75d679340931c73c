"""The watch demo: a network in flash, trained on other people, and a head in RAM that learns a person.

Trains a small CNN on the wrist movements of seven people, converts it to int8, checks it byte by byte on an
emulated rv32imc board, and lets that board learn each arm of the three people left out. Twice, so that six
people are left out once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

try:
    import watch
    from board import check_tools, ring_bytes
    from personal import (
        DESCENT,
        EPOCHS_ON_BOARD,
        Fold,
        PersonArm,
        PowerCut,
        learn_personally,
        make_fold,
    )
    from picture import draw
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from torch_nano.errors import BoardError
    from torch_nano.files.writing import write_file
except ModuleNotFoundError as missing:
    sys.exit(
        f"demo: the Python package {missing.name!r} is missing. `just setup` installs what the demo needs; "
        "by hand: pip install './python-plugin[demo]'"
    )

INTRODUCTION = """\
Ten people did seven shoulder exercises with a watch on each arm. A small
network learns from seven of them, becomes int8 and runs on an emulated rv32imc
chip. There its head learns each arm of the other three, from the first quarter
of that arm's own recordings: by linear discriminant analysis, and by gradient
descent. Then three others are left out. About a minute.
"""
OUTPUT = Path(__file__).resolve().parents[2] / "build" / "demo"


@dataclass(frozen=True)
class Settings:
    """Settings of a run of the demo."""

    seed: int = 0
    #: The people left out, a tuple per fold.
    folds: tuple[tuple[int, ...], ...] = watch.FOLDS
    #: Epochs of the float training.
    epochs: int = 20
    #: Folder of the demo's output.
    output: Path = OUTPUT


def run(settings: Settings, console: Console) -> dict[str, Any]:
    """Runs the whole demo; returns the contents of report.json.

    Raises:
        FileNotFoundError: the recordings are not installed.
        BoardError: QEMU or the board's program is missing, or the board stops.
        OSError: the folder cannot be written to.
    """
    started = time.monotonic()
    check_tools()
    console.print(INTRODUCTION, highlight=False)
    windows = watch.load_windows()
    settings.output.mkdir(parents=True, exist_ok=True)

    folds: list[Fold] = []
    arms: list[PersonArm] = []
    cuts: list[PowerCut] = []
    for left_out in settings.folds:
        console.rule(f"Without people {', '.join(map(str, left_out))}", align="left")
        fold = make_fold(windows, left_out, seed=settings.seed, epochs=settings.epochs)
        print_fold(fold, console)
        folds.append(fold)
        learnt, cut = learn_personally(fold)
        arms += learnt
        cuts.append(cut)
        print_learnt(learnt, cut, console)
    arms.sort(key=lambda arm: arm.subject)

    console.rule("The model on the board", align="left")
    # The other folds' models have the same layers and sizes.
    console.print(str(folds[0].sgd.summary()), highlight=False, soft_wrap=True)
    console.rule("Personal learning on the board", align="left")
    report = make_report(settings, folds, arms, cuts)
    print_arms(arms, report, console)

    picture, model, file = (settings.output / name for name in ("personal.png", "model", "report.json"))
    differing = sum(report["differing_bytes"].values())
    note = (
        f"Real watch recordings, 7 exercises. Backbone in flash ({report['flash_bytes']:,} B), learnt from "
        f"other people;\nhead in RAM ({report['lda_head_bytes']:,} B), learnt from the first 25 % of each "
        f"arm's windows. Emulated rv32imc; {differing} bytes differ from the PC."
    )
    draw(arms, picture, note)
    folds[0].sgd.export(model)
    report["seconds"] = round(time.monotonic() - started, 1)
    write_file(file, (json.dumps(report, indent=2) + "\n").encode())

    print_result(report, console)
    for name, path in (("picture", picture), ("figures", file), ("model", model)):
        console.print(f"{name:8} {path}", soft_wrap=True, highlight=False)
    return report


def print_fold(fold: Fold, console: Console) -> None:
    """Prints the accuracy on the people left out, and the comparison of board and PC."""
    size, verified = len(fold.test), fold.verified
    right_float, right_int8 = (percent(right / size) for right in (fold.right_float, fold.right_int8))
    console.print(f"their {size:,} windows: float {right_float}, int8 {right_int8}")
    console.print(
        f"board ({verified.target}) against PC: {verified.inputs:,} windows, "
        f"{verified.compared_bytes:,} bytes compared, {verified.differing_bytes:,} differ"
    )


def print_learnt(arms: list[PersonArm], cut: PowerCut, console: Console) -> None:
    """Prints what the board learnt of a fold's arms, and the effect of the power cut."""
    generic = percent(float(np.mean([arm.generic for arm in arms])))
    by_sums = percent(float(np.mean([arm.personal for arm in arms])))
    by_descent = percent(float(np.mean([arm.personal_sgd for arm in arms])))
    console.print(
        f"mean of {len(arms)} arms: {generic} as shipped, {by_sums} after learning, by SGD {by_descent}\n"
        f"power cut while it learnt person {cut.subject}'s {cut.arm} arm, {cut.windows} windows saved, "
        f"one more lost\n({cut.lost_bytes} bytes); back with the saved head "
        f"({cut.differing_head_bytes} bytes differ) it learnt the others",
        soft_wrap=True,
    )


def print_arms(arms: list[PersonArm], report: dict[str, Any], console: Console) -> None:
    """Prints the table of all arms."""
    console.print(
        "Learnt from the first 25 % of an arm's windows, scored on those after 30 %.\n"
        "Generic: the head as shipped. LDA: after linear discriminant analysis on the\n"
        "board, which starts from what the other people's windows say. SGD: after\n"
        f"gradient descent ({EPOCHS_ON_BOARD} epochs, learning rate {DESCENT.learning_rate}, halved every "
        f"{DESCENT.halve_every});\n* the guard took it back. Logistic: float logistic regression on the "
        "same\nint8 features.",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in (
        "person",
        "arm",
        "learnt",
        "scored",
        "generic",
        "LDA",
        "SGD",
        "logistic",
        "bytes\ndiffer",
    ):
        table.add_column(header, justify="left" if header == "arm" else "right", no_wrap=True)
    for arm in arms:
        generic, by_sums, by_descent, logistic = (
            percent(value) for value in (arm.generic, arm.personal, arm.personal_sgd, arm.logistic)
        )
        accuracies = [generic, by_sums, "*" * arm.taken_back + by_descent, logistic]
        counts = (str(arm.learnt), str(arm.scored))
        table.add_row(str(arm.subject), arm.arm, *counts, *accuracies, str(arm.differing_head_bytes))
    table.add_section()
    accuracy = report["accuracy"]
    means = [percent(accuracy[name]) for name in ("generic_scored", "personal", "personal_sgd", "logistic")]
    total = [str(sum(arm.learnt for arm in arms)), str(sum(arm.scored for arm in arms))]
    table.add_row("mean", "", *total, *means, str(report["differing_bytes"]["head"]))
    console.print(table)
    console.print(
        f"on rv32imc: {report['prediction_instructions']:,} instructions per prediction, "
        f"{report['commit_instructions']:,} to solve\nfor an LDA head's weights, "
        f"{report['training_instructions']:,} to train an SGD head",
        soft_wrap=True,
    )


def print_result(report: dict[str, Any], console: Console) -> None:
    """Prints the main figures."""
    accuracy = {name: percent(value) for name, value in report["accuracy"].items()}
    differing, heads = report["differing_bytes"], len(report["person_arms"])
    worst = {name: 100 * gain for name, gain in report["worst_gain"].items()}
    console.rule("Result", align="left")
    for line in (
        f"left-out people, all windows: float {accuracy['generic_float']}, int8 {accuracy['generic_int8']}",
        f"mean of {heads} arms: generic {accuracy['generic_scored']}, LDA {accuracy['personal']}, "
        f"SGD {accuracy['personal_sgd']}, logistic {accuracy['logistic']}",
        f"least that learning gains an arm: LDA {worst['personal']:+.1f} points, "
        f"SGD {worst['personal_sgd']:+.1f} points",
        f"board against PC: {report['windows_compared']:,} windows, {differing['forward']} bytes differ",
        f"learning replayed on the PC: {2 * heads} heads, {differing['head']} bytes differ",
        f"logits of these heads: {differing['personal_logits']} bytes differ",
        f"power cuts while learning: {len(report['power_cuts'])}; heads after the restart, "
        f"{differing['restarted_head']} bytes differ",
        f"flash {report['flash_bytes']:,} B; RAM: arena {report['arena_bytes']:,} B, SGD head "
        f"{report['head_bytes']:,} B\nand learnt features {report['ring_bytes']:,} B, or LDA head "
        f"{report['lda_head_bytes']:,} B",
        f"took {report['seconds']:.0f} s",
    ):
        console.print(line, soft_wrap=True)


def make_report(
    settings: Settings, folds: list[Fold], arms: list[PersonArm], cuts: list[PowerCut]
) -> dict[str, Any]:
    """All figures that the demo prints; accuracies are fractions.

    `accuracy.generic_float` and `.generic_int8` are on all windows of the people left out; `.generic_scored`,
    `.personal` (by linear discriminant analysis), `.personal_sgd` and `.logistic` are means over the arms, on
    each one's scored windows. `worst_gain` is the least that learning adds to an arm's generic accuracy.
    """
    windows = sum(len(fold.test) for fold in folds)
    shipped = folds[0].sgd.summary()
    return {
        "seed": settings.seed,
        "epochs": settings.epochs,
        "epochs_on_board": EPOCHS_ON_BOARD,
        "learning_rate": DESCENT.learning_rate,
        "accuracy": {
            "generic_float": sum(fold.right_float for fold in folds) / windows,
            "generic_int8": sum(fold.right_int8 for fold in folds) / windows,
            "generic_scored": float(np.mean([arm.generic for arm in arms])),
            "personal": float(np.mean([arm.personal for arm in arms])),
            "personal_sgd": float(np.mean([arm.personal_sgd for arm in arms])),
            "logistic": float(np.mean([arm.logistic for arm in arms])),
        },
        "worst_gain": {
            "personal": min(arm.personal - arm.generic for arm in arms),
            "personal_sgd": min(arm.personal_sgd - arm.generic for arm in arms),
        },
        "differing_bytes": {
            "forward": sum(fold.verified.differing_bytes for fold in folds),
            "head": sum(arm.differing_head_bytes for arm in arms),
            "personal_logits": sum(arm.differing_logit_bytes for arm in arms),
            "restarted_head": sum(cut.differing_head_bytes for cut in cuts),
        },
        "windows_compared": sum(fold.verified.inputs for fold in folds),
        "bytes_compared": sum(fold.verified.compared_bytes for fold in folds),
        "flash_bytes": shipped.flash_bytes,
        "arena_bytes": shipped.arena_bytes,
        "head_bytes": shipped.head_bytes,
        "lda_head_bytes": folds[0].lda.summary().head_bytes,
        "ring_bytes": ring_bytes(folds[0].sgd, max(arm.learnt for arm in arms)),
        "prediction_instructions": max(arm.prediction_instructions for arm in arms),
        "training_instructions": round(np.mean([arm.training_instructions for arm in arms])),
        "commit_instructions": round(np.mean([arm.commit_instructions for arm in arms])),
        "folds": [
            {
                "left_out": fold.left_out,
                "windows": len(fold.test),
                "generic_float": fold.right_float / len(fold.test),
                "generic_int8": fold.right_int8 / len(fold.test),
                "verified": asdict(fold.verified),
                "summary": asdict(fold.sgd.summary()) | {"macs": fold.sgd.summary().macs},
            }
            for fold in folds
        ],
        "person_arms": [asdict(arm) for arm in arms],
        "power_cuts": [asdict(cut) for cut in cuts],
    }


def percent(fraction: float) -> str:
    """Formats a fraction in percent.

    >>> percent(0.91234)
    '91.2 %'
    """
    return f"{100 * fraction:.1f} %"


def parse(arguments: list[str] | None = None) -> Settings:
    """Parses the command line and makes the output folder; ends the program if a setting is wrong."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.split("\n\n")[1])
    parser.add_argument("--seed", type=_seed, default=0, help="of the float training (default: 0)")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder to write to (default: build/demo)"
    )
    given = parser.parse_args(arguments)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"argument --output: {str(given.output)!r} cannot be made ({error.strerror}); "
            "expected a folder, which is made if it is missing"
        )
    return Settings(seed=given.seed, output=given.output)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected a whole number from 0 to 2**63 - 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; 0 if no byte differs between board and PC."""
    settings = parse(arguments)
    try:
        report = run(settings, Console())
    except (BoardError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped by Ctrl-C; what it wrote before is not of this run", file=sys.stderr)
        return 130
    differing = sum(report["differing_bytes"].values())
    if differing:
        print(f"demo: {differing} bytes differ between the board and this computer", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
