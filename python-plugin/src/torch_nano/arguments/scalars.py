"""Numbers, texts, paths and lists that a user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import _native
from ..errors import HeadError, InputError, LabelError, TorchNanoError

#: The largest number of a field of the device's protocol.
LARGEST = _native.LARGEST_COUNT
#: Seconds; operating systems count the milliseconds of a time-out in 31 bits.
_WAITS = (0.001, 1e6)


def plain(value: Any) -> Any:
    """Converts a scalar of numpy or torch to Python's; returns anything else unchanged."""
    scalar = isinstance(value, np.ndarray | np.generic | torch.Tensor) and value.ndim == 0
    return value.item() if scalar else value


def whole_number(
    name: str,
    value: object,
    *,
    least: int = 0,
    most: int | None = None,
    error: type[TorchNanoError] = HeadError,
) -> int:
    """`value` as an int: Python's, or a scalar of numpy or torch.

    >>> whole_number("epochs", np.int64(3))
    3
    >>> whole_number("epochs", 1.5)
    Traceback (most recent call last):
    torch_nano.errors.HeadError: epochs is 1.5; expected a whole number, 0 or more

    Raises:
        TorchNanoError: of kind `error`: it is not a whole number, or not from `least` to `most`.
    """
    number = plain(value)
    whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not whole or number < least or (most is not None and number > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise error(f"{name} is {shown(value)}; expected a whole number, {limits}")
    return int(number)


def integer(name: str, given: Any, least: int = 0) -> int:
    """Converts an integer of Python, numpy or torch, from `least` to 2^32 - 1, to Python's int.

    Raises:
        InputError: it is not such an integer.
    """
    return whole_number(name, given, least=least, most=LARGEST, error=InputError)


def as_integer(given: Any) -> int | None:
    """Converts an integer of Python, numpy or torch to Python's; None for anything else, bools included.

    >>> import torch
    >>> as_integer(torch.tensor(2)), as_integer(True), as_integer(2.0)
    (2, None, None)
    """
    number = plain(given)
    return int(number) if isinstance(number, Integral) and not isinstance(number, bool) else None


def positive_number(
    name: str,
    value: object,
    *,
    within: tuple[float, float] = (0.0, math.inf),
    error: type[TorchNanoError] = HeadError,
) -> float:
    """`value` as a float above 0 and finite: Python's, or a scalar of numpy or torch.

    >>> positive_number("learning_rate", torch.tensor(0.5))
    0.5
    >>> positive_number("learning_rate", -1)
    Traceback (most recent call last):
    torch_nano.errors.HeadError: learning_rate is -1; expected a finite number above 0

    Raises:
        TorchNanoError: of kind `error`: it is not such a number, or not within `within`.
    """
    number = plain(value)
    try:
        real = float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    except OverflowError:
        real = math.inf
    if not (0.0 < real < math.inf and within[0] <= real <= within[1]):
        limits = "a finite number above 0"
        if within[1] < math.inf:
            least = f"from {within[0]} to" if within[0] > 0.0 else "above 0, at most"
            limits = f"a number {least} {within[1]}"
        raise error(f"{name} is {shown(value)}; expected {limits}")
    return real


def probability(name: str, given: Any) -> float:
    """Converts a probability, a number from 0 to 1, to Python's float.

    Raises:
        InputError: it is not one.
    """
    number = plain(given)
    real = isinstance(number, Real) and not isinstance(number, bool)
    if not real or not 0 <= number <= 1:
        raise InputError(f"{name} is {shown(given)}; expected a probability, 0 to 1")
    return float(number)


def seconds(name: str, given: Any) -> float:
    """Converts a time-out in seconds to Python's float.

    Raises:
        InputError: it is not a number, below a millisecond, or longer than operating systems can wait.
    """
    return positive_number(name, given, within=_WAITS, error=InputError)


def items(name: str, value: object, expected: str, *, error: type[TorchNanoError] = HeadError) -> list[Any]:
    """The items of a list, tuple, or array or tensor of one dimension.

    Raises:
        TorchNanoError: of kind `error`: it is something else.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 1:
        return list(value.tolist())
    raise error(f"{name} is {shown(value)}; expected {expected}")


def mapping(
    name: str, value: object, expected: str, *, error: type[TorchNanoError] = HeadError
) -> dict[Any, Any]:
    """The entries of a mapping; empty for None.

    Raises:
        TorchNanoError: of kind `error`: it is not a mapping.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise error(f"{name} is {shown(value)}; expected {expected}")
    return dict(value)


def one_of(
    name: str, value: object, choices: Sequence[str], *, error: type[TorchNanoError] = InputError
) -> None:
    """Checks that `value` is one of the texts that a setting can be.

    >>> one_of("target", "esp32", ("host", "rv32imc"))
    Traceback (most recent call last):
    torch_nano.errors.InputError: target is 'esp32'; expected one of host, rv32imc

    Raises:
        TorchNanoError: of kind `error`: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise error(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")


def text(name: str, given: Any) -> str:
    """Checks that an argument is a str that UTF-8 can encode.

    Raises:
        InputError: it is not.
    """
    if not isinstance(given, str):
        raise InputError(f"{name} is {shown(given)}; expected a text")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is {given!r}, which is no Unicode text: {error.reason}") from error
    return given


def path_of(name: str, given: Any) -> Path:
    """Converts an argument to a Path.

    Raises:
        InputError: it is not a path, empty, or has a zero in it.
    """
    try:
        path = Path(given)
    except TypeError as error:
        raise InputError(f"{name} is {shown(given)}; expected a path") from error
    if given == "":
        raise InputError(f"{name} is ''; expected a path, such as '.' for the current folder")
    if "\0" in str(path):
        raise InputError(f"{name} is {shown(given)}; expected a path, which has no zero in it")
    return path


def class_index(wanted: int | str, classes: int, names: Sequence[str]) -> int:
    """The index of a class, given its name or its index.

    >>> class_index("wlak", 2, ["walk", "run"])
    Traceback (most recent call last):
    torch_nano.errors.LabelError: no class is called 'wlak'; did you mean 'walk'? Known: walk, run

    Raises:
        LabelError: there is no such class.
    """
    index = as_integer(wanted)
    if index is not None:
        if not 0 <= index < classes:
            raise LabelError(f"there is no class {index}; expected 0 to {classes - 1}")
        return index
    if not isinstance(wanted, str):
        raise LabelError(f"the class is {shown(wanted)}; expected its index or its name")
    if wanted in names and wanted:
        return names.index(wanted)
    named = [name for name in names if name]
    similar = get_close_matches(wanted, named, 1)
    guess = f"did you mean {similar[0]!r}? " if similar else ""
    there = f"Known: {', '.join(named)}" if named else "No class has a name on this device: use indices"
    raise LabelError(f"no class is called {wanted!r}; {guess}{there}")


def shown(value: object) -> str:
    """`value` for an error message: on one line, shortened to 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
