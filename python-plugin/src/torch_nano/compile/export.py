"""Export: writes the files of a firmware's model into a folder."""

from __future__ import annotations

from pathlib import Path

from .. import _native
from ..errors import ExportError
from ..files.writing import write_file
from ..heads import Head
from ..ir.graph import Graph
from .rust_crate import crate_files
from .rust_module import GENERATED, IMAGE_FILE, MODULE_FILE, rust_module


def export(
    folder: Path, model: _native.Model, head: Head | None, graph: Graph, dependency: str | None
) -> None:
    """Writes the image and the Rust module into a folder, which is made if it is missing.

    Args:
        graph: the model's, for the shapes of inputs and outputs in PyTorch.
        dependency: also make it a crate, which depends on nano-core so (:func:`.rust_crate.dependency`).

    Raises:
        ExportError: a file of that name is there that no export wrote, or the folder cannot be made or
            written; export again then, as some of the files may be of this export already.
    """
    texts = {MODULE_FILE: rust_module(model, head, graph)}
    if dependency is not None:
        texts |= crate_files(model, head, graph, dependency)
    try:
        _write(folder, model.image, texts)
    except ExportError:
        raise
    except (OSError, ValueError) as error:
        reason = "a file of that name is there" if isinstance(error, FileExistsError) else str(error)
        raise ExportError(
            f"cannot export to {folder}: {reason}; expected a folder, which is made if it is missing"
        ) from error


def _write(folder: Path, image: bytes, texts: dict[str, str]) -> None:
    # The image has no first line to know it by: it belongs to the module.
    for name, marked in {IMAGE_FILE: MODULE_FILE, **{name: name for name in texts}}.items():
        if (folder / name).exists() and not _is_ours(folder / marked):
            raise ExportError(
                f"{folder / name} exists and was not written by an export: "
                "move it away, or export into another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / IMAGE_FILE, image)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_file(folder / name, text.encode())


def _is_ours(file: Path) -> bool:
    return file.is_file() and GENERATED.encode() in file.read_bytes().partition(b"\n")[0]
