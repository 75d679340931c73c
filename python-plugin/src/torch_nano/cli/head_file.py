"""Head files: a head's state, the id of its model, and a checksum.

The format is a line with its version, the model's id and the CRC-32 of that id and the state (both 4 bytes,
little-endian), and the state. `torch-nano device read-head` writes a file, `write-head` reads it.
"""

from __future__ import annotations

from pathlib import Path

from .. import _native
from ..arguments import path_of
from ..errors import FileFormatError, HeadError
from ..files.reading import read_file
from ..files.writing import write_new

_NAME = b"torch-nano head "
_FIRST_LINE = _NAME + b"1\n"
_STATE = len(_FIRST_LINE) + 8


def save_head(path: str | Path, model_id: int, state: bytes) -> None:
    """Writes the state of a head of the model with this id to a new file.

    >>> import tempfile, torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> nano = tn.to_nano(model, torch.randn(64, 4), calibrate=torch.randn(64, 4), head=tn.heads.SGD())
    >>> file = tempfile.mkdtemp() + "/anna.head"
    >>> save_head(file, nano.id, nano.head.state())
    >>> nano.head.load(load_head(file, nano.id))

    Raises:
        InputError: `path` is not a path.
        FileExistsError: the file exists.
        OSError: it cannot be written; no file is left.
    """
    identity = model_id.to_bytes(4, "little")
    checksum = _native.crc32(identity + state).to_bytes(4, "little")
    write_new(path_of("path", path), _FIRST_LINE + identity + checksum + state)


def load_head(path: str | Path, model_id: int) -> bytes:
    """Reads the state from a file of :func:`save_head`.

    Raises:
        FileFormatError: it is not such a file, is damaged, or comes from another version.
        InputError: `path` is not a path.
        HeadError: the head belongs to another model than the one with this id.
        OSError: it cannot be read.
    """
    content = read_file(path_of("path", path))
    if not content.startswith(_FIRST_LINE):
        if content.startswith(_NAME):
            raise FileFormatError(f"{path} is a head's file of another version; read the head anew")
        raise FileFormatError(f"{path} is no head's file; expected one that read-head or save_head wrote")
    identity, checksum = content[len(_FIRST_LINE) : _STATE - 4], content[_STATE - 4 : _STATE]
    state = content[_STATE:]
    if checksum != _native.crc32(identity + state).to_bytes(4, "little"):
        raise FileFormatError(
            f"{path} is damaged ({len(content)} bytes): its checksum is wrong; copy or read it anew"
        )
    if identity != model_id.to_bytes(4, "little"):
        of = int.from_bytes(identity, "little")
        raise HeadError(f"{path} has a head of model {of:08x}; expected one of model {model_id:08x}")
    return state
