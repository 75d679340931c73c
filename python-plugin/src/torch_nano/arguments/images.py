"""Models that a user gives as a module or as an image."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .. import _native
from ..errors import FileFormatError, InputError
from .scalars import shown


class HasImage(Protocol):
    """Anything with an image: a :class:`torch_nano.NanoModule`."""

    @property
    def image(self) -> bytes:
        """The `.nano` image."""


def image_of(nano: HasImage | _native.Model | bytes) -> _native.Model:
    """The checked image of a model that is given as a module or as its image.

    Raises:
        InputError: it is neither.
        FileFormatError: the bytes are not an image, or are damaged.
    """
    image = bytes_of(nano)
    checked = nano if isinstance(nano, _native.Model) else getattr(nano, "_model", None)
    if isinstance(checked, _native.Model):
        return checked
    try:
        return _native.Model(image)
    except _native.NanoError as error:
        raise FileFormatError(f"the {len(image)} bytes given are no model's image: {error}") from error


def bytes_of(nano: HasImage | _native.Model | bytes) -> bytes:
    """The image bytes of a model that is given as a module or as its image.

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
