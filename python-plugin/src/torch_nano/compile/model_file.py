"""Models in files: those of `nano.save`, and images of `nano.export`."""

from __future__ import annotations

from pathlib import Path

from ..files.reading import read_file
from .nano_module import NanoModule, load


def read_model(path: Path) -> NanoModule | bytes:
    """A saved model, or the bytes of an image (`model.nano`).

    Raises:
        FileFormatError: the file is no saved model.
        OSError: it cannot be read.
    """
    content = read_file(path)
    return content if content.startswith(b"NANO") else load(path)
