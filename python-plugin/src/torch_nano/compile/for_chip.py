"""A model for one chip: how much RAM its weights may take, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from ..arguments import shown, whole_number
from ..chips import Chip
from ..chips import chip as chip_named
from ..errors import InputError, SizeWarning, TooLargeError, warn
from ..fits.variant import Variant
from .image import MOST_IN_RAM
from .nano_module import NanoModule
from .optimization import MODELLED, Optimization

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
    make: Callable[[int, Optimization], NanoModule],
    chip: Chip | None,
    weights_in_ram: WeightsInRam,
    optimization: Optimization,
    variant: Variant = Variant.SERVER,
) -> NanoModule:
    """Makes a model that fits a chip, with weights in RAM.

    Args:
        make: makes the model with that many bytes of RAM for weights, and this choice of kernels.
        chip: None: any.
        optimization: its limits are those that the user has given; without, the kernels take what the
            firmware leaves of the chip's flash and RAM, of an ESP32-C3's if there is no chip.
        variant: what the firmware does.

    Raises:
        TooLargeError: it does not fit.
    """
    in_ram = 0 if weights_in_ram == "auto" else weights_in_ram
    nano = make(in_ram, optimization)
    _check_budget(nano, optimization)
    limited = _limited(nano, optimization, chip or chip_named(MODELLED), variant)
    if limited != optimization:
        optimization = limited
        nano = make(in_ram, optimization)
    if chip is None:
        return nano
    if weights_in_ram == "auto":
        ram = nano.fits_without_time(chip, variant).ram
        room = int(ram.available - ram.used) - _ALIGNMENT
        nano = make(max(room, 0), optimization)
    fit = nano.fits_without_time(chip, variant)
    if not fit:
        raise TooLargeError(fit.problem)
    if fit.advice:
        warn(str(fit), SizeWarning)
    return nano


def _limited(nano: NanoModule, optimization: Optimization, chip: Chip, variant: Variant) -> Optimization:
    """The limits with those of a chip, where the user has given none and the chip has too little."""
    fit = nano.fits_without_time(chip, variant)
    flash, ram = optimization.flash, optimization.ram
    if flash is None and not fit.flash.fits:
        flash = max(nano.flash_bytes - math.ceil(fit.flash.used - fit.flash.available), 0)
    if ram is None and not fit.ram.fits:
        excess = math.ceil(fit.ram.used - fit.ram.available)
        ram = max(nano.arena_bytes - nano.weights_in_ram - excess, 0)
    return replace(optimization, flash=flash, ram=ram)


def _check_budget(nano: NanoModule, given: Optimization) -> None:
    """Refuses a budget that no choice of kernels keeps."""
    for name, limit, taken in (
        ("flash", given.flash, nano.flash_bytes),
        ("ram", given.ram, nano.arena_bytes - nano.weights_in_ram),
    ):
        if limit is not None and taken > limit:
            what = "image" if name == "flash" else "arena"
            raise TooLargeError(
                f"budget[{name!r}] is {limit:,} B, and the {what} of this model needs {taken:,} B with the "
                "kernels that need least: give more, or take fewer inputs or channels"
            )
