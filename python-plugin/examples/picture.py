"""The picture of the watch demo: what each person's arm gains by learning on the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from personal import PersonArm

GENERIC, PERSONAL, LOGISTIC = "#7d838c", "#d1495b", "#1d4e89"
GAIN_AT = 102
"""Position of the gains on the axis of percent."""
MEAN_WIDTH = 2.3
"""Width of a mean's figure on that axis."""


def draw(arms: list[PersonArm], path: Path, note: str) -> None:
    """Writes a PNG: the three accuracies on the scored windows of each person's arm, and their means.

    `note` is a text under the title. Needs no display.
    """
    names = [f"person {arm.subject}, {arm.arm} arm" for arm in arms]
    # The means are below the arms, with a gap.
    rows = [*range(len(arms)), len(arms) + 0.5]
    generic = _with_mean([arm.generic for arm in arms])
    personal = _with_mean([arm.personal for arm in arms])
    logistic = _with_mean([arm.logistic for arm in arms])

    figure = Figure(figsize=(9.6, 2.9 + 0.36 * len(arms)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.hlines(rows, generic, personal, color=PERSONAL, alpha=0.35, linewidth=5, zorder=1)
    axes.scatter(generic, rows, s=58, color=GENERIC, label="as shipped (int8)", zorder=2)
    axes.scatter(
        personal, rows, s=58, color=PERSONAL, label="after learning on the board (LDA, int8)", zorder=3
    )
    # Taller than the dots and above them, so that neither hides the other.
    label = "logistic regression on the PC (float)"
    axes.scatter(logistic, rows, s=190, marker="|", linewidth=2.2, color=LOGISTIC, label=label, zorder=4)
    _write_means(axes, rows[-1], [(generic[-1], GENERIC), (personal[-1], PERSONAL), (logistic[-1], LOGISTIC)])
    _write_gains(axes, rows, personal - generic)

    lowest = 10 * np.floor(min(generic.min(), personal.min(), logistic.min()) / 10)
    ticks = np.arange(lowest, 101, 10)
    axes.set_xlim(lowest - 2, GAIN_AT + 7)
    axes.set_xticks(ticks, [f"{tick:.0f} %" for tick in ticks])
    axes.set_yticks(rows, [*names, f"mean of {len(arms)}"])
    axes.set_ylim(rows[-1] + 1.1, -1.3)
    axes.axhline(len(arms) - 0.25, color="black", linewidth=0.6)
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("windows recognised, of those after the first 30 % of each recording")
    axes.set_title(note, loc="left", fontsize=9, color="#555555")
    title = f"Learning on the board: from {generic[-1]:.1f} % to {personal[-1]:.1f} % for people never met"
    figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path)


def _write_means(axes: Axes, row: float, means: list[tuple[float, str]]) -> None:
    """Writes each mean under its mark, or further right if the one before takes the room."""
    free = -np.inf
    for mean, color in sorted(means):
        place = (max(mean, free), row + 0.4)
        axes.annotate(f"{mean:.1f}", place, ha="center", va="top", color=color, weight="bold", fontsize=9)
        free = place[0] + MEAN_WIDTH


def _with_mean(fractions: list[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The fractions in percent, and their mean."""
    return 100 * np.array([*fractions, np.mean(fractions)], np.float64)


def _write_gains(axes: Axes, rows: list[float], gains: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    axes.annotate("gain in points", (GAIN_AT, -0.9), va="center", color=PERSONAL, fontsize=8)
    for row, gain in zip(rows, gains, strict=True):
        text = f"{gain:+.1f}".replace("-", "\N{MINUS SIGN}").replace("+0.0", "0.0")
        weight = "bold" if row == rows[-1] else "normal"
        axes.annotate(text, (GAIN_AT, row), va="center", color=PERSONAL, weight=weight)
