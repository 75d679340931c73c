"""Fields of requests from users' arguments, checked before anything is sent."""

from __future__ import annotations

from typing import Any

from .. import _native
from ..arguments import shown, whole_number
from ..errors import HeadError, InputError
from ..heads import Head
from .answers import DeviceInfo


def epochs_of(epochs: Any, first_epoch: Any, least: int = 0) -> dict[str, int]:
    """The fields of a training; their sum is at most nano-core's limit.

    >>> epochs_of(20, 0)
    {'epochs': 20, 'first_epoch': 0}

    Raises:
        InputError: they are not such numbers.
    """
    most = _native.LARGEST_EPOCHS
    epochs = whole_number("epochs", epochs, least=least, most=most, error=InputError)
    first_epoch = whole_number("first_epoch", first_epoch, most=most - epochs, error=InputError)
    return {"epochs": epochs, "first_epoch": first_epoch}


def state_of(head: Head | bytes, info: DeviceInfo) -> bytes:
    """The state of a head for a device.

    Raises:
        HeadError: it is not a head, of another model, or has another size.
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
