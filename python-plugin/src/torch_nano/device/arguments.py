"""What users give, checked before anything is sent: what was given, what was expected, what to do."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _native
from ..arguments import plain, positive_number, shown, whole_number
from ..errors import FileFormatError, HeadError, InputError
from ..heads import Head

if TYPE_CHECKING:
    from ..compile.nano_module import NanoModule
    from .answers import DeviceInfo

#: The largest number of a request's field.
LARGEST = _native.LARGEST_COUNT
#: Operating systems count the milliseconds of a time-out in 31 bits.
_WAITS = (0.001, 1e6)


def integer(name: str, given: Any, least: int = 0) -> int:
    """An integer from `least` to 2^32 - 1, of Python, numpy or torch.

    Raises:
        InputError: it is none.
    """
    return whole_number(name, given, least=least, most=LARGEST, error=InputError)


def epochs_of(epochs: Any, first_epoch: Any, least: int = 0) -> dict[str, int]:
    """The fields of a training: both together are at most what nano-core allows.

    >>> epochs_of(20, 0)
    {'epochs': 20, 'first_epoch': 0}

    Raises:
        InputError: they are no such numbers.
    """
    most = _native.LARGEST_EPOCHS
    epochs = whole_number("epochs", epochs, least=least, most=most, error=InputError)
    first_epoch = whole_number("first_epoch", first_epoch, most=most - epochs, error=InputError)
    return {"epochs": epochs, "first_epoch": first_epoch}


def as_integer(given: Any) -> int | None:
    """What is given as an integer of Python's; None if it is none. A bool is none.

    >>> import torch
    >>> as_integer(torch.tensor(2)), as_integer(True), as_integer(2.0)
    (2, None, None)
    """
    number = plain(given)
    return int(number) if isinstance(number, Integral) and not isinstance(number, bool) else None


def probability(name: str, given: Any) -> float:
    """A float from 0 to 1.

    Raises:
        InputError: it is none.
    """
    number = plain(given)
    real = isinstance(number, Real) and not isinstance(number, bool)
    if not real or not 0 <= number <= 1:
        raise InputError(f"{name} is {shown(given)}; expected a probability, 0 to 1")
    return float(number)


def seconds(name: str, given: Any) -> float:
    """A time to wait, at least a millisecond.

    Raises:
        InputError: it is none, or longer than operating systems wait.
    """
    return positive_number(name, given, within=_WAITS, error=InputError)


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


def image_of(nano: NanoModule | _native.Model | bytes) -> _native.Model:
    """The image of a model that is given as a module or as its image, whole, checked unless it is already.

    Raises:
        InputError: it is neither.
        FileFormatError: it is no image, or a damaged one.
    """
    image = bytes_of(nano)
    checked = nano if isinstance(nano, _native.Model) else getattr(nano, "_model", None)
    if isinstance(checked, _native.Model):
        return checked
    try:
        return _native.Model(image)
    except _native.NanoError as error:
        raise FileFormatError(f"the {len(image)} bytes given are no model's image: {error}") from error


def bytes_of(nano: NanoModule | _native.Model | bytes) -> bytes:
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
