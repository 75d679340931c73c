"""The committed costs on the emulated board, which no change may exceed by more than a tolerance.

`device_baseline.csv` has a row for each cost: what it is of, its name, its value. It is written by `just
bench-device --write-baseline`, which raises no row: that is an edit of the file, with a reason in the commit.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("device_baseline.csv")
#: By the unit in a cost's name, how far it may be above the baseline. Cycles vary with any change of the
#: code, which then has other places in the cache.
TOLERANCES = {"instructions": 0.01, "bytes": 0.03, "cycles": 0.05}


class Key(NamedTuple):
    """What a row of the file is about."""

    name: str
    cost: str

    def __str__(self) -> str:
        return f"{self.name}, {self.cost}"


Costs = dict[Key, float]


def read() -> Costs:
    """The committed costs."""
    with FILE.open(newline="") as file:
        return {Key(name, cost): float(value) for name, cost, value in list(csv.reader(file))[1:]}


def write(measured: Costs) -> None:
    """Adds what is new, lowers what fell, and removes what is no longer measured."""
    committed = read() if FILE.exists() else {}
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "cost", "value"])
        writer.writerows([*key, f"{value:.10g}"] for key, value in lowered(committed, measured).items())


def lowered(committed: Costs, measured: Costs) -> Costs:
    """What is measured, no row higher than it was.

    >>> conv, add, table = (Key(name, "instructions") for name in ("conv", "add", "table"))
    >>> list(lowered({conv: 100, add: 5, table: 7}, {conv: 101, add: 4}).values())
    [100, 4]
    >>> list(lowered({}, {table: 7}).values())
    [7]
    """
    return {key: min(value, committed.get(key, value)) for key, value in measured.items()}


def complaints(measured: Costs, committed: Costs) -> list[str]:
    """What is above the baseline by more than its tolerance, and rows that only one side has.

    >>> conv, board = Key("conv", "instructions"), Key("board program", "code in bytes")
    >>> complaints({conv: 1010, board: 1030}, {conv: 1000, board: 1000})
    []
    >>> for line in complaints({conv: 1011, board: 900}, {conv: 1000, Key("add", "instructions"): 5}):
    ...     print(line)
    conv, instructions: 1,011, which is 1.10 % above the baseline's 1,000; at most 1 % is allowed
    board program, code in bytes: not in the baseline
    add, instructions: in the baseline, but not measured
    """
    found = []
    for key, value in measured.items():
        (tolerance,) = (share for unit, share in TOLERANCES.items() if unit in key.cost)
        before = committed.get(key)
        if before is None:
            found.append(f"{key}: not in the baseline")
        elif value > before * (1 + tolerance):
            above = 100 * (value / before - 1)
            found.append(
                f"{key}: {value:,.10g}, which is {above:.2f} % above the baseline's {before:,.10g}; "
                f"at most {100 * tolerance:g} % is allowed"
            )
    return found + [f"{key}: in the baseline, but not measured" for key in committed if key not in measured]
