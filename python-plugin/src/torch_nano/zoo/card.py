"""Cards of the models, and the models by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..arguments import shown
from ..compile.nano_module import NanoModule
from ..compile.nano_module import load as load_model
from ..errors import InputError

FOLDER = Path(__file__).parent
"""Of the models' files and `cards.toml`, both written by `python-plugin/examples/train_zoo.py`."""


@dataclass(frozen=True)
class Card:
    """What a model is for, what it reaches and what it takes; prints as text.

    Accuracies are in % of samples that the model was not trained on. They were measured on a PC, whose bytes
    are those of a device.
    """

    name: str
    title: str
    task: str
    #: The package on PyPI that has the data, their licence and their source.
    data: str
    #: Shape of one sample, and the meaning and unit of its numbers.
    input: str
    classes: tuple[str, ...]
    #: What `accuracy_float` and `accuracy_int8` were measured on.
    scored: str
    #: Who teaches the head, and how much.
    user: str
    accuracy_float: float
    accuracy_int8: float
    #: Mean of the users before the head has learnt, and after it.
    accuracy_before: float
    accuracy_personal: float
    #: Bytes of the image.
    flash_bytes: int
    #: Bytes of RAM for one run, and for the state of the head.
    arena_bytes: int
    head_bytes: int
    #: One prediction by the cycle model of each chip whose costs are known, by the chip's name.
    milliseconds: Mapping[str, float]
    #: Bytes of the file that :func:`load` reads.
    file_bytes: int

    def __str__(self) -> str:
        times = ", ".join(f"{time} ms on {chip}" for chip, time in self.milliseconds.items())
        accuracy = f"{self.accuracy_float} % in float, {self.accuracy_int8} % in int8"
        personal = f"{self.accuracy_before} %, and after learning {self.accuracy_personal} %"
        memory = f"flash {self.flash_bytes:,} B, arena {self.arena_bytes:,} B, head {self.head_bytes:,} B"
        return "\n".join(
            [
                f"{self.name}: {self.title}",
                self.task,
                f"input     {self.input}",
                f"classes   {', '.join(self.classes)}",
                f"accuracy  {accuracy}: {self.scored}",
                f"personal  {personal}: {self.user}",
                f"memory    {memory}",
                f"time      {times}, by a model of the cycles",
                f"data      {self.data}",
            ]
        )


def names() -> tuple[str, ...]:
    """The names of all models."""
    return tuple(_cards())


def card(name: str) -> Card:
    """The card of a model.

    Raises:
        InputError: the zoo has no model of this name.
    """
    cards = _cards()
    if name not in cards:
        raise InputError(f"the zoo has no model {shown(name)}; it has {', '.join(cards)}")
    values = cards[name]
    return Card(name, **{**values, "classes": tuple(values["classes"])})


def load(name: str) -> NanoModule:
    """A model, ready to predict, to learn on, and to export: its head is as its factory trained it.

    >>> import torch, torch_nano as tn
    >>> nano = tn.zoo.load("watch")
    >>> window = torch.zeros(1, 6, 100)  # in g and rad/s
    >>> nano(window).shape, len(nano.labels)
    (torch.Size([1, 7]), 7)

    Raises:
        InputError: the zoo has no model of this name.
    """
    return load_model(FOLDER / f"{card(name).name}.nanomodel")


@cache
def _cards() -> dict[str, dict[str, Any]]:
    return tomllib.loads((FOLDER / "cards.toml").read_text())
