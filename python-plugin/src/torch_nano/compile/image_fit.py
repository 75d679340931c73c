"""What an image alone takes of a chip, as an export has it: without the names of modules."""

from __future__ import annotations

from .. import _native
from ..chips import Chip
from ..fits.chip_fit import ChipFit, LayerUse, chip_fit
from ..fits.variant import Variant
from ..heads import head_of
from .memory_map import arena_in_use


def image_fit(image: _native.Model, chip: Chip, variant: Variant = Variant.SERVER) -> ChipFit:
    """The fit of an image, as :meth:`torch_nano.NanoModule.fits` without the time."""
    trainer = type(head_of(image)).__name__ if image.has_head else None
    layers = [
        LayerUse("", layer["kernel"], layer["constant_bytes"], arena)
        for layer, arena in zip(image.layers, arena_in_use(image), strict=True)
    ]
    return chip_fit(image, chip, layers, trainer, variant)
