"""A model for one chip: how much RAM its weights may take, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..arguments import shown, whole_number
from ..chips import Chip
from ..errors import InputError, SizeWarning, TooLargeError, warn
from .image import MOST_IN_RAM
from .nano_module import NanoModule

#: Bytes of RAM for weights; "auto": all that the model leaves of the chip's.
WeightsInRam = int | Literal["auto"]

#: Bytes of which copies of weights take whole ones, and before which there is padding.
_ALIGNMENT = 16


def checked_weights_in_ram(given: object, chip: Chip | None) -> WeightsInRam:
    """The budget that a user gives.

    Raises:
        InputError: it is no number of bytes and not "auto", or "auto" without a chip.
    """
    if isinstance(given, str):
        if given != "auto":
            raise InputError(f"weights_in_ram is {shown(given)}; expected a number of bytes, or 'auto'")
        if chip is None:
            raise InputError(
                "weights_in_ram='auto' takes the RAM that the model leaves of a chip's: say which, "
                "target='esp32c3', or give a number of bytes"
            )
        return "auto"
    return whole_number("weights_in_ram", given, most=MOST_IN_RAM, error=InputError)


def for_chip(
    make: Callable[[int], NanoModule], chip: Chip | None, weights_in_ram: WeightsInRam
) -> NanoModule:
    """Makes a model that fits a chip, with weights in RAM.

    Args:
        make: makes the model with that many bytes of RAM for weights.
        chip: None: any.

    Raises:
        TooLargeError: it does not fit.
    """
    nano = make(0 if weights_in_ram == "auto" else weights_in_ram)
    if chip is None:
        return nano
    if weights_in_ram == "auto":
        ram = nano.fits_without_time(chip).ram
        room = int(ram.available - ram.used) - _ALIGNMENT
        nano = make(max(room, 0))
    fit = nano.fits_without_time(chip)
    if not fit:
        raise TooLargeError(fit.problem)
    if fit.tight or not chip.builds:
        warn(str(fit), SizeWarning)
    return nano
