"""Arrays from untrusted `.npz` files, as `np.savez` and `np.savez_compressed` write them."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import TorchNanoError
from .reading import LARGEST, refusing

#: Decompressed arrays may take this many times the file's size, or this many bytes if that is more.
MOST_TIMES, ALWAYS_ALLOWED = 100, 64 << 20
_SUFFIX = ".npy"
#: The methods that np.savez uses; others allocate memory by sizes in the file that nothing checks.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Kinds of dtypes: bools, integers, floats, texts and bytes. Others run code, or cannot be samples.
_KINDS = "biufUS"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(
    content: bytes, path: Path, names: Set[str], error: type[TorchNanoError]
) -> dict[str, NDArray[Any]]:
    """Reads the named arrays of a file; its other arrays come as names with empty arrays.

    The decompressed size is checked before anything is decompressed: at most :data:`MOST_TIMES` the file's
    size, or :data:`ALWAYS_ALLOWED`.

    Raises:
        TorchNanoError: of kind `error`: it is not such a file, damaged or too large, or a named array holds
            Python objects.
    """
    size = len(content)
    with refusing(error, f"{path} cannot be read"), _archive(content, path, error) as archive:
        members = {one.filename.removesuffix(_SUFFIX): one for one in archive.infolist()}
        arrays: dict[str, NDArray[Any]] = {name: np.empty(0) for name in members}
        wanted = [member for name, member in members.items() if name in names]
        total = sum(member.file_size for member in wanted)
        most = min(max(MOST_TIMES * size, ALWAYS_ALLOWED), LARGEST)
        if total > most:
            raise error(
                f"{path} has {size} bytes, and would take {total} in memory; at most {most} are read: "
                "split it, or save it without compression"
            )
        for name in names & members.keys():
            arrays[name] = _array(archive, members[name], f"{path}, array {name!r}", error)
        return arrays


def _archive(content: bytes, path: Path, error: type[TorchNanoError]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as raised:
        raise error(f"{path} is no .npz file, or damaged") from raised


def _array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, error: type[TorchNanoError]
) -> NDArray[Any]:
    with refusing(error, place):
        if member.compress_type not in _COMPRESSIONS:
            raise error(f"{place} is compressed in another way than np.savez_compressed does it")
        content = io.BytesIO(archive.read(member))
        version = npy.read_magic(content)
        if version not in _HEADERS:
            raise error(f"{place} has a format of version {version}; expected one that np.savez writes")
        shape, by_columns, dtype = _HEADERS[version](content)
        if dtype.hasobject or dtype.kind not in _KINDS:
            raise error(f"{place} is of {dtype}; arrays of Python objects are not read")
        data = content.getbuffer()[content.tell() :]
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise error(f"{place} has {len(data)} bytes; expected shape {shape} of {dtype}")
        if dtype.kind == "U":
            # numpy accepts any code points here, and fails on invalid ones only when it makes a str.
            codes = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
            if codes.max(initial=0) > sys.maxunicode:
                raise error(f"{place} has {codes.max():#x} among its texts, which is no character")
        flat: NDArray[Any] = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if by_columns else "C")
