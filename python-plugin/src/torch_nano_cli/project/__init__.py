"""A new project, from the templates in this folder."""

from __future__ import annotations

import errno
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from torch_nano.arguments import one_of
from torch_nano.chips import chip as facts_of
from torch_nano.errors import ChipError, InputError
from torch_nano.files.writing import write_new
from torch_nano.fits.variant import Variant

_FILES = ("model.py", "train.py", "test_project.py", "justfile", "README.md")
#: A sensor that any board with such a unit may have, and the one that is taken for it.
_KINDS = {"imu": Variant.LSM6DSO}
_INERTIAL = {
    "numbers": "6",
    "length": "100",
    "hop": "50",
    "channels": "6",
    "kernel": "5",
    "stride": "2",
    "inputs": "x",
}
#: By sensor: what the templates say of it. esp32-app/BOARDS.md has the numbers of a sample.
_SENSORS = {
    Variant.LSM6DSO: _INERTIAL,
    Variant.MPU6050: _INERTIAL,
    Variant.VOLTAGE: _INERTIAL | {"numbers": "1", "channels": "1"},
    Variant.MICROPHONE: {
        "numbers": "160",
        "length": "50",
        "hop": "25",
        "channels": "1",
        "kernel": "64",
        "stride": "32",
        "inputs": "x.transpose(1, 2).reshape(len(x), 1, -1)",
    },
}


def make_project(folder: Path, chip: str, sensor: str) -> list[Path]:
    """Writes a project into a new folder, whose name is the project's; returns its files.

    Raises:
        InputError: the name is no name of a project, or there is no such sensor.
        ChipError: there is no such chip, or no firmware for it.
        FileExistsError: the folder is there, and not empty.
        OSError: it cannot be written.
    """
    name = folder.resolve().name
    if re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) is None:
        raise InputError(
            f"the project's name is {name!r}; expected small letters, digits, - and _, such as my-watch"
        )
    facts = facts_of(chip)
    if not facts.builds:
        raise ChipError(f"there is no firmware for {facts.title}: {facts.reason}")
    sensor = _KINDS.get(sensor, sensor)
    one_of("sensor", sensor, (*_KINDS, *_SENSORS))
    words = {"name": name, "chip": chip, "sensor": str(sensor), **_SENSORS[Variant(sensor)]}
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            errno.EEXIST, "the folder is there, and not empty; expected a new one", str(folder)
        )
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file in _FILES:
        template = files(__package__).joinpath(f"{file}.template").read_text(encoding="utf-8")
        made.append(folder / file)
        write_new(made[-1], Template(template).substitute(words).encode())
    return made
