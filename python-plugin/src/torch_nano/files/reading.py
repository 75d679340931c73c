"""Reading of untrusted files: bounded in memory, with one error type for everything that is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..arguments import shown
from ..errors import FileFormatError, MissingFileError, TorchNanoError

#: The largest file that is read as a whole, in bytes: more than any model, head, record or sample file of a
#: device needs.
LARGEST = 1 << 30
_CHUNK = 1 << 20
#: Characters shown of another library's message, which may quote all of the input.
_SHOWN = 300
_Fields = TypeVar("_Fields")


def read_file(path: Path, error: type[TorchNanoError] = FileFormatError, most: int = LARGEST) -> bytes:
    """Reads all bytes of a file, a pipe or a device.

    Raises:
        MissingFileError: there is no such file.
        OSError: it cannot be read.
        TorchNanoError: of kind `error`: it has more than `most` bytes, or more than fit into memory.
    """
    try:
        opened = path.open("rb", buffering=0)
    except FileNotFoundError as raised:
        raise MissingFileError(
            f"{path}: there is no such file; a relative path starts at {Path.cwd()}"
        ) from raised
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        parts: list[bytes] = []
        total = 0
        try:
            while total <= most and size <= most:
                part = file.read(max(size - total, _CHUNK))
                if not part:
                    return b"".join(parts)
                parts.append(part)
                total += len(part)
        except MemoryError as raised:
            raise error(f"{path}: its {size} bytes take more memory than there is") from raised
        raise error(f"{path} has {max(size, total)} bytes or more; expected at most {most}")


@contextmanager
def refusing(error: type[TorchNanoError], place: str) -> Iterator[None]:
    """Converts every exception of a parser inside to `error`, with `place` in front of the message.

    What parsers raise on malformed bytes is not documented: numpy, zipfile and json raise a dozen types,
    RecursionError, MemoryError and OSError among them. Errors of this package pass through. Read from the
    disk before, by :func:`read_file`: an OSError inside counts as malformed bytes.

    >>> with refusing(FileFormatError, "a.json"):
    ...     json.loads("[" * 100_000)
    Traceback (most recent call last):
    torch_nano.errors.FileFormatError: a.json: it is nested too deeply
    """
    try:
        yield
    except TorchNanoError:
        raise
    except RecursionError as raised:
        raise error(f"{place}: it is nested too deeply") from raised
    except MemoryError as raised:
        raise error(f"{place}: it takes more memory than there is") from raised
    except Exception as raised:
        reason = " ".join(str(raised).split()) or type(raised).__name__
        raise error(f"{place}: {reason if len(reason) <= _SHOWN else reason[:_SHOWN] + '...'}") from raised


def parse_json(text: bytes, error: type[TorchNanoError], place: str) -> Any:
    """Parses JSON in UTF-8.

    Raises:
        TorchNanoError: of kind `error`: it is not JSON, or nested too deeply.
    """
    with refusing(error, place):
        return json.loads(text.decode())


def fields_of(kind: type[_Fields], values: Any, place: str) -> _Fields:
    """Makes a dataclass from a dict of its fields, and checks their types.

    >>> from torch_nano.arithmetic.quantization import Quantization
    >>> fields_of(Quantization, {"scale": 0.5, "zero_point": 3}, "input")
    Quantization(scale=0.5, zero_point=3, dtype='int8')
    >>> fields_of(Quantization, {"scale": 0.5, "zero_point": "3"}, "input")
    Traceback (most recent call last):
    torch_nano.errors.FileFormatError: input: zero_point is '3'; expected int

    Raises:
        FileFormatError: it is not a dict, or a field is missing, unknown or of another type.
    """
    if not isinstance(values, dict):
        raise FileFormatError(f"{place}: it is {shown(values)}; expected the fields of {kind.__name__}")
    assert dataclasses.is_dataclass(kind)
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if not needed <= values.keys() <= names:
        wrong = next(iter(values.keys() - names), None)
        lacks = f"it has {wrong!r}" if wrong is not None else f"it lacks {min(needed - values.keys())!r}"
        raise FileFormatError(f"{place}: {lacks}; expected the fields of {kind.__name__}")
    for name, value in values.items():
        if not _is_of(value, hints[name]):
            expected = getattr(hints[name], "__name__", None) if not get_args(hints[name]) else None
            raise FileFormatError(f"{place}: {name} is {shown(value)}; expected {expected or hints[name]}")
    with refusing(FileFormatError, place):
        made: _Fields = kind(**values)
    return made


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation."""
    if hint is Any:
        return True
    if hint is float:
        # JSON may write a whole float as an integer, which must be exact as a float.
        return type(value) is float or (type(value) is int and abs(value) <= 1 << 53)
    kind, items = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_is_of(value, item) for item in items)
    if kind is tuple and type(value) is tuple:
        if items[1:] == (...,):
            return all(_is_of(item, items[0]) for item in value)
        return len(value) == len(items) and all(map(_is_of, value, items))
    if kind is list and type(value) is list:
        return all(_is_of(item, items[0]) for item in value)
    if kind is dict and isinstance(value, dict):
        return all(_is_of(name, items[0]) and _is_of(item, items[1]) for name, item in value.items())
    # type() and not isinstance(): a bool does not count as an int.
    return type(value) is (kind or hint)
