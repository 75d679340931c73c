"""The size of the firmware, from the table that `just program-sizes` writes from linked programs."""

from __future__ import annotations

import tomllib
from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .variant import Variant

#: The chip for which the programs of the table were linked.
LINKED_FOR = "esp32c3"
#: The firmware of a model without a trainable head.
NO_HEAD = "NoHead"


@dataclass(frozen=True)
class ProgramSizes:
    """What the firmware takes besides the model's image and RAM, in bytes."""

    #: Code and constants in flash.
    code: int
    #: Code and data in RAM.
    ram: int
    #: The latest sample of a sensor, in RAM that counts as the model's.
    sample: int
    #: The deepest that the stack was seen to go.
    stack: int


def program_sizes(kernels: Set[str], trainer: str | None, variant: Variant = Variant.SERVER) -> ProgramSizes:
    """The sizes of a firmware that links these kernels, and a trainer by the name of its class.

    >>> one, two = (program_sizes(names, None) for names in ({"conv2d"}, {"conv2d", "softmax"}))
    >>> one.code < two.code
    True
    """
    table = _table()
    base = table["programs"][variant][trainer or NO_HEAD]
    linked = [group for group in table["code"] if not kernels.isdisjoint(group["kernels"])]
    code = sum(group["flash"] for group in linked) + table["kernel_entry"] * len(kernels)
    ram = sum(group.get("ram", 0) for group in linked)
    sample = table["sample"].get(variant, 0)
    return ProgramSizes(base["code"] + code, base["ram"] + ram, sample, table["stack"])


def linked_code() -> list[tuple[int, list[str]]]:
    """Bytes of code, each with the kernels of which one in the firmware is enough to link it.

    >>> any("conv2d" in kernels for _, kernels in linked_code())
    True
    """
    return [(group["flash"], group["kernels"]) for group in _table()["code"]]


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("program.toml").read_text())
