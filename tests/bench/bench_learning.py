"""How well heads learn in integers, against float on the same int8 features: `just bench-learning`.

Real data and frozen backbones: scikit-learn's digits, MNIST and MNIST-1D, of whose ten classes a backbone
knows eight, and a watch's recordings, of whose people it knows seven. Prints what is recognised after 1, 2,
5, 10 samples of each class and after all, and writes build/bench/learning.json. Ends with status 1 if a bar
is missed, and names it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
# Where the examples' data and training are, and the definition of the order in which a head trains.
sys.path[:0] = [str(ROOT / "python-plugin/examples"), str(ROOT / "tests")]

import learning_certainty  # noqa: E402
import learning_heads  # noqa: E402
import learning_sets  # noqa: E402
import learning_shots  # noqa: E402
import learning_watch  # noqa: E402
import watch  # noqa: E402
from learning_certainty import Scored  # noqa: E402
from learning_heads import Accuracies, Incremental  # noqa: E402
from learning_shots import Shots  # noqa: E402
from learning_watch import ALL  # noqa: E402

REPORT = ROOT / "build/bench/learning.json"
#: Largest mean loss of accuracy to float on a set, in points.
LARGEST_GAP = 0.3
#: Largest loss of SgdHead to float for any number of samples, in points.
LARGEST_CELL_GAP = 1.0
#: Mean % of a person-arm's scored windows.
LOWEST_WATCH = {"sgd": 91.0, "lda": 93.0}
#: With the guard, points that a person-arm may end below the head that it began with, and that the mean may
#: lose.
LARGEST_HARM, LARGEST_PRICE = 0.5, 0.3
#: Points that a head with a half-life may be behind a fresh one, soon after its wearer changed.
LARGEST_LAG = 1.0


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    sets: tuple[str, ...] = tuple(learning_sets.SETS)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    shots: tuple[int, ...] = (1, 2, 5, 10)
    draws: int = 5
    folds: tuple[tuple[int, ...], ...] = watch.FOLDS
    watch_seeds: tuple[int, ...] = (0, 1, 2)
    #: Of the backbones' training; None: as many as each set says.
    epochs: int | None = None
    watch_epochs: int = 20
    #: Of the sets whose user differs from the factory.
    shifted_seeds: tuple[int, ...] = (0, 1)
    shifted_draws: int = 3
    #: Of confidence, unknown and rare classes; and those of them that also learn without labels.
    certainty_seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Extent(
    sets=("digits",),
    seeds=(0,),
    shots=(1, 10),
    draws=1,
    folds=watch.FOLDS[:1],
    watch_seeds=(0,),
    epochs=5,
    watch_epochs=4,
    shifted_seeds=(),
    shifted_draws=1,
    certainty_seeds=(0,),
)


@dataclass(frozen=True)
class Measured:
    """Mean accuracies in %, by set, samples of each class learnt from (or `ALL`), and learner."""

    sets: dict[str, dict[str, Accuracies]]
    #: Of the watch: per seed, and their means.
    watch_seeds: dict[int, dict[str, Accuracies]]
    watch: dict[str, Accuracies]
    incremental: Incremental
    #: Of users who differ from the factory, in %, by set.
    shots: dict[str, Shots]
    #: By set and head, the figures of `learning_certainty`, and those of imbalanced streams.
    certainty: dict[str, dict[str, Accuracies]]
    balance: dict[str, dict[str, Accuracies]]
    #: What LdaHead gains without labels, in points, by set and number of samples with a label.
    unlabelled: dict[str, Accuracies]
    #: Of each person-arm of the watch, with and without the guard.
    judged: list[Accuracies]
    #: Of each person-arm of the watch that follows another person's.
    changed: list[Accuracies]

    def gaps(self) -> dict[str, Accuracies]:
        """Accuracy that the heads lose to float after all samples, in points."""
        return {name: behind_float(rows[ALL]) for name, rows in self.sets.items()}

    def cells(self) -> dict[str, Accuracies]:
        """Accuracy that SgdHead loses to float, in points, by the number of samples of each class."""
        return {
            name: {count: behind_float(row)["sgd"] for count, row in rows.items()}
            for name, rows in {**self.sets, "watch": self.watch}.items()
        }

    def missed(self) -> list[str]:
        """The bars that are missed."""
        missed = [
            f"{name}: {head} is {gap:.2f} points behind float, and may be {LARGEST_GAP}"
            for name, gaps in self.gaps().items()
            for head, gap in gaps.items()
            if gap > LARGEST_GAP
        ]
        missed += [
            f"{name}: sgd is {gap:.2f} points behind float with {count} of each class, and may be "
            f"{LARGEST_CELL_GAP}"
            for name, cells in self.cells().items()
            for count, gap in cells.items()
            if gap > LARGEST_CELL_GAP
        ]
        missed += [
            f"watch: {head} recognises {self.watch[ALL][head]:.2f} %, and should {lowest} %"
            for head, lowest in LOWEST_WATCH.items()
            if self.watch[ALL][head] < lowest
        ]
        if not self.incremental.same_bytes or self.incremental.lda != self.incremental.lda_joint:
            missed.append("digits: what LdaHead has learnt depends on the order in which classes arrive")
        worst, mean = self.worst_arm(), self.personal_mean()
        if worst["guarded"] < -LARGEST_HARM:
            missed.append(
                f"watch: with the guard an arm ends {-worst['guarded']:.2f} points below its generic one"
            )
        if mean["sgd"] - mean["guarded"] > LARGEST_PRICE:
            missed.append(f"watch: the guard costs {mean['sgd'] - mean['guarded']:.2f} points of the mean")
        missed += [
            f"watch: {head}, with a half-life, is {lag:.2f} points behind a new head; {LARGEST_LAG} may be"
            for head, lag in self.lags().items()
            if lag > LARGEST_LAG
        ]
        missed += learning_certainty.missed(self.certainty, self.balance)
        return missed + learning_shots.missed(self.shots)

    def worst_arm(self) -> Accuracies:
        """The least that learning gains a person-arm, in points."""
        return {
            name: min(arm[name] - arm["generic"] for arm in self.judged) for name in learning_watch.JUDGED
        }

    def personal_mean(self) -> Accuracies:
        """The mean over the person-arms, in %."""
        return {name: float(np.mean([arm[name] for arm in self.judged])) for name in self.judged[0]}

    def lags(self) -> Accuracies:
        """Points that heads with a half-life are behind fresh ones, soon after the wearer changed."""
        means = {name: float(np.mean([arm[name] for arm in self.changed])) for name in self.changed[0]}
        return {head: means[f"{head}, fresh"] - means[head] for head in learning_watch.FADING}

    def report(self) -> dict[str, Any]:
        """What is written: gaps in points, all else in %."""
        last = self.watch[ALL]
        return {
            "gap_points": self.gaps(),
            "sgd_cells": self.cells(),
            "watch": {name: last[name] for name in ("sgd", "lda", "logistic", "generic")},
            "accuracy": {**self.sets, "watch": self.watch},
            "watch_seeds": {str(seed): rows[ALL] for seed, rows in self.watch_seeds.items()},
            "class_incremental": asdict(self.incremental),
            "shots": self.shots,
            "auto_rate_gaps": learning_shots.rate_gaps(self.shots),
            "worst_arm": self.worst_arm(),
            "personal_mean": self.personal_mean(),
            "drift": self.lags(),
            **{
                name: {
                    one: {head: row[name] for head, row in heads.items()}
                    for one, heads in self.certainty.items()
                }
                for name in ("auroc", "ece", "false_alarms", "unknown_found")
            },
            "balance": self.balance,
            "unlabelled_gain": self.unlabelled,
        }


def behind_float(row: Accuracies) -> Accuracies:
    """Accuracy that `sgd` and `lda` lose to `float_sgd` and `float_lda`, in points."""
    return {head: row[f"float_{head}"] - row[head] for head in ("sgd", "lda")}


def measure(extent: Extent) -> Measured:
    """All of it; says how far it is."""
    started = time.monotonic()

    def say(what: str, row: Accuracies) -> None:
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in row.items())
        print(f"{time.monotonic() - started:4.0f} s  {what}: {numbers}", flush=True)

    sets: dict[str, dict[str, Accuracies]] = {}
    certainty: dict[str, dict[str, Accuracies]] = {}
    balance: dict[str, dict[str, Accuracies]] = {}
    unlabelled: dict[str, Accuracies] = {}
    incremental = []
    for name in extent.sets:
        data = learning_sets.SETS[name]()
        results = []
        scored: dict[str, list[Scored]] = {}
        rare, gains = [], []
        for seed in extent.seeds:
            frozen = learning_sets.freeze(data, seed, extent.epochs)
            heads = learning_heads.heads_of(frozen.model, learning_heads.SCHEDULE)
            rows = {
                str(shots): learning_heads.few_shots(heads, frozen, shots, extent.draws, seed)
                for shots in extent.shots
            }
            rows[ALL] = learning_heads.accuracies(heads, frozen.user, frozen.scored, frozen.quantization)
            results.append(rows)
            if name == "digits":
                incremental.append(learning_heads.class_incremental(heads.sgd, frozen))
            say(f"{name}, seed {seed}", rows[ALL])
            if seed in extent.certainty_seeds:
                for head, made in learning_certainty.on_set(frozen, seed).items():
                    scored.setdefault(head, []).append(made)
                user, test, meaning = frozen.user, frozen.scored, frozen.quantization
                rare.append(learning_certainty.balance(frozen.model, meaning, user, test, seed))
                gains.append(learning_certainty.unlabelled(frozen, extent.draws))
        sets[name] = mean_rows(results)
        certainty[name] = {head: learning_certainty.figures(parts) for head, parts in scored.items()}
        balance[name], unlabelled[name] = mean_rows(rare), mean_rows([{"": gain} for gain in gains])[""]

    windows = watch.load_windows()
    watch_seeds = {}
    judged: list[Accuracies] = []
    changed: list[Accuracies] = []
    scored, rare = {}, []
    shifted: dict[str, list[Shots]] = {}
    for seed in extent.watch_seeds:
        arms = []
        for left_out in extent.folds:
            fold = learning_watch.fold(windows, left_out, seed=seed, epochs=extent.watch_epochs)
            arms += learning_watch.person_arms(fold)
            judged += learning_watch.judged_arms(fold)
            changed += learning_watch.changed_wearers(fold)
            if seed in extent.certainty_seeds:
                for head, parts in learning_certainty.on_watch(fold).items():
                    scored.setdefault(head, []).extend(parts)
                rare += learning_certainty.balance_on_watch(fold, seed)
            shifted.setdefault("watch", []).extend(
                learning_shots.shots_of(fold.shipped, fold.users, extent.shifted_draws)
            )
        watch_seeds[seed] = mean_rows(arms)
        say(f"watch, seed {seed}, {len(arms)} person-arms", watch_seeds[seed][ALL])
    certainty["watch"] = {head: learning_certainty.figures(parts) for head, parts in scored.items()}
    balance["watch"] = mean_rows(rare)
    for seed in extent.shifted_seeds:
        for name, shipped, users in learning_shots.shifted_sets(seed, extent.epochs):
            shots = learning_shots.shots_of(shipped, users, extent.shifted_draws)
            shifted.setdefault(name, []).extend(shots)
            say(f"{name}, seed {seed}", learning_shots.mean_shots(shots)["lda"])
    means = {
        name: learning_shots.with_best_rate(learning_shots.mean_shots(shots))
        for name, shots in shifted.items()
    }
    return Measured(
        *(sets, watch_seeds, mean_rows(list(watch_seeds.values())), mean_incremental(incremental), means),
        *(certainty, balance, unlabelled),
        judged=judged,
        changed=changed,
    )


def mean_rows(results: list[dict[str, Accuracies]]) -> dict[str, Accuracies]:
    """The mean of each number of some results.

    >>> mean_rows([{"all": {"sgd": 90.0}}, {"all": {"sgd": 91.0}}])
    {'all': {'sgd': 90.5}}
    """
    return {
        row: {name: float(np.mean([result[row][name] for result in results])) for name in results[0][row]}
        for row in results[0]
    }


def mean_incremental(results: list[Incremental]) -> Incremental:
    """Means over seeds; the bytes must be the same for all of them."""
    names = ("lda", "lda_joint", "sgd", "sgd_joint")
    means = {name: float(np.mean([getattr(result, name) for result in results])) for name in names}
    return replace(results[0], same_bytes=all(result.same_bytes for result in results), **means)


def table(title: str, learners: Iterable[str], sets: dict[str, dict[str, Accuracies]]) -> Table:
    """One row for each set and number of samples, and its gaps where all of their numbers are there."""
    learners = list(learners)
    with_gaps = "float_sgd" in learners
    gap_names = ["gap sgd", "gap lda"] if with_gaps else []
    shown = Table("set", "of each class", *learners, *gap_names, title=title, title_justify="left")
    for name, rows in sets.items():
        for count, row in rows.items():
            gaps = behind_float(row).values() if with_gaps else []
            numbers = [*(f"{row[one]:.2f}" for one in learners), *(f"{gap:+.2f}" for gap in gaps)]
            shown.add_row(name, count, *numbers, end_section=count == ALL)
    return shown


def shots_table(sets: dict[str, Shots]) -> Table:
    """One row for each set and learner."""
    title = "accuracy in %: a user who differs from the factory, by samples of each class"
    columns = max((list(shots["shipped"]) for shots in sets.values()), key=len)
    shown = Table("set", "learner", *columns, title=title, title_justify="left")
    for name, shots in sets.items():
        for learner, row in shots.items():
            numbers = [f"{row[one]:.2f}" if one in row else "-" for one in columns]
            shown.add_row(name, learner, *numbers, end_section=learner == list(shots)[-1])
    return shown


def conclude(measured: Measured, report: Path, console: Console) -> int:
    """Prints the tables, writes the report, and names the bars that are missed: 1 if there are any."""
    title = "accuracy in %: heads in integers, and in float on the same int8 features"
    console.print(table(title, learning_heads.LEARNERS, measured.sets))
    seeds = {f"watch, seed {seed}": {ALL: rows[ALL]} for seed, rows in measured.watch_seeds.items()}
    title = "accuracy in %: a person's arm, learnt from the first 25 % of its windows"
    console.print(table(title, learning_watch.LEARNERS, {**seeds, "watch": measured.watch}))
    console.print(shots_table(measured.shots))
    worst, mean = measured.worst_arm(), measured.personal_mean()
    each = ", ".join(f"{name} {mean[name]:.2f} % (worst arm {worst[name]:+.2f})" for name in worst)
    console.print(
        f"watch, {len(measured.judged)} person-arms, generic {mean['generic']:.2f} %: {each}, "
        f"{mean['taken back']:.0f} % of the trainings taken back"
    )
    lags = ", ".join(f"{name} {lag:.2f}" for name, lag in measured.lags().items())
    console.print(
        f"watch, {learning_watch.NEW_WINDOWS} windows after a change of wearer, with a half-life: points "
        f"behind a fresh head: {lags}"
    )
    learning_certainty.show(console, measured.certainty, measured.balance, measured.unlabelled)
    one = measured.incremental
    console.print(
        f"digits, one class after another: LdaHead {one.lda:.2f} % (all at once {one.lda_joint:.2f} %, "
        f"{'the same' if one.same_bytes else 'OTHER'} bytes), SgdHead {one.sgd:.2f} % ({one.sgd_joint:.2f} %)"
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(measured.report(), indent=2) + "\n")
    missed = measured.missed()
    for bar in missed:
        console.print(f"missed: {bar}", style="bold")
    return int(bool(missed))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one seed of the digits and of half the watch, little training; into learning-quick.json",
    )
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    if quick:
        return conclude(measure(QUICK), REPORT.with_stem("learning-quick"), console)
    return conclude(measure(Extent()), REPORT, console)


if __name__ == "__main__":
    sys.exit(main())
