"""What users give, checked before anything is sent: what was given, what was expected, what to do."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import _native
from ..errors import FileFormatError, HeadError, InputError
from ..heads import Head

if TYPE_CHECKING:
    from ..module import NanoModule
    from .answers import DeviceInfo

#: The largest number of a request's field.
LARGEST = (1 << 32) - 1
#: Operating systems count the milliseconds of a time-out in 31 bits.
_LONGEST = 1_000_000.0


def integer(name: str, given: Any, least: int = 0, meaning: str = "") -> int:
    """An integer from `least` to 2^32 - 1, of Python, numpy or torch.

    >>> integer("epochs", np.int64(3))
    3
    >>> integer("epochs", 1.5, 1)
    Traceback (most recent call last):
    torch_nano.errors.InputError: epochs is 1.5; expected an integer from 1 to 4294967295

    Args:
        meaning: what is counted or what the least means, for the message.

    Raises:
        InputError: it is none.
    """
    number = as_integer(given)
    if number is None or not least <= number <= LARGEST:
        first = f"{least} ({meaning})" if meaning else f"{least}"
        raise InputError(f"{name} is {shown(given)}; expected an integer from {first} to {LARGEST}")
    return number


def as_integer(given: Any) -> int | None:
    """What is given as an integer of Python's; None if it is none. A bool is none.

    >>> as_integer(torch.tensor(2)), as_integer(True), as_integer(2.0)
    (2, None, None)
    """
    boolean = isinstance(given, bool | np.bool_) or getattr(given, "dtype", None) in (torch.bool, np.bool_)
    try:
        return None if boolean else operator.index(given)
    except TypeError:
        return None


def probability(name: str, given: Any) -> float:
    """A float from 0 to 1.

    Raises:
        InputError: it is none.
    """
    number = _number(given)
    if number is None or not 0 <= number <= 1:
        raise InputError(f"{name} is {shown(given)}; expected a probability, 0 to 1")
    return number


def seconds(name: str, given: Any) -> float:
    """A time to wait, above 0.

    Raises:
        InputError: it is none, or longer than operating systems wait.
    """
    number = _number(given)
    if number is None or not 0 < number <= _LONGEST:
        raise InputError(
            f"{name} is {shown(given)}; expected seconds, a number above 0 and at most {_LONGEST:,.0f}"
        )
    return number


def text(name: str, given: Any) -> str:
    """A text that UTF-8 can hold.

    Raises:
        InputError: it is none.
    """
    if not isinstance(given, str):
        raise InputError(f"{name} is {shown(given)}; expected a text")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is {given!r}, which is no Unicode text: {error.reason}") from error
    return given


def path(name: str, given: Any) -> Path:
    """A path of the file system.

    Raises:
        InputError: it is none.
    """
    try:
        return Path(given)
    except TypeError as error:
        raise InputError(f"{name} is {shown(given)}; expected a path") from error


def image_of(nano: NanoModule | bytes) -> bytes:
    """The image of a model that is given as a module or as its image, whole.

    Raises:
        InputError: it is neither.
        FileFormatError: it is no image, or a damaged one.
    """
    image = bytes_of(nano)
    try:
        _native.Model(image)
    except _native.NanoError as error:
        raise FileFormatError(f"the {len(image)} bytes given are no model's image: {error}") from error
    return image


def bytes_of(nano: NanoModule | bytes) -> bytes:
    """The bytes of a model that is given as a module or as its image.

    Raises:
        InputError: it is neither.
    """
    image = nano if isinstance(nano, bytes | bytearray) else getattr(nano, "image", None)
    if not isinstance(image, bytes | bytearray):
        way = (
            "read the file: tn.load(path), or Path(path).read_bytes() of a model.nano"
            if isinstance(nano, str | Path)
            else "tn.to_nano(model, ...) gives it"
        )
        raise InputError(f"nano is {shown(nano)}; expected a NanoModule, or its image as bytes: {way}")
    return bytes(image)


def state_of(head: Head | bytes, info: DeviceInfo) -> bytes:
    """The state of a head for a device.

    Raises:
        HeadError: it is none, of another model, or has another size.
    """
    if isinstance(head, Head):
        if head.model_id != info.model_id:
            raise HeadError(
                f"the head belongs to model {head.model_id:08x}; the device runs {info.name!r}, model "
                f"{info.model_id:08x}: give a head of that one"
            )
        state = head.state()
    elif isinstance(head, bytes | bytearray):
        state = bytes(head)
    else:
        raise HeadError(f"the head is {shown(head)}; expected a Head such as nano.head, or a state in bytes")
    if len(state) != info.head_length:
        raise HeadError(
            f"the head has {len(state)} bytes; that of the model on the device, {info.name!r}, has "
            f"{info.head_length}: give one of the same model"
        )
    return state


def shown(given: Any) -> str:
    """What was given, short enough for a message."""
    simple = isinstance(given, bool | int | float | str | np.generic | None)
    return f"{given!r:.60}" if simple else f"a {type(given).__name__}"


def _number(given: Any) -> float | None:
    """A finite number of Python, numpy or torch as a float; None if it is none."""
    if isinstance(given, str | bytes | bytearray | bool):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
