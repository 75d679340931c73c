"""Reading files that nobody vouches for: bounded in memory, with one kind of error for all that is wrong."""

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
from ..errors import FileFormatError, TorchNanoError

#: The most bytes of a file that is read as a whole: more than any model, head, record or table of a device
#: needs.
LARGEST = 1 << 30
_CHUNK = 1 << 20
#: How much of another library's message is shown: it may hold all of what it refuses.
_SHOWN = 300
_Fields = TypeVar("_Fields")


def read_file(path: Path, error: type[TorchNanoError] = FileFormatError, most: int = LARGEST) -> bytes:
    """All bytes of a file, a pipe or a device.

    Raises:
        OSError: it cannot be read.
        TorchNanoError: of kind `error`: it has more than `most` bytes, or more than there is memory for.
    """
    with path.open("rb", buffering=0) as file:
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
    """Whatever the bytes of a file make the code inside raise becomes `error`, with `place` in front.

    What a parser raises on bytes that it was not made for is not documented: of numpy, zipfile and json a
    dozen kinds are known, RecursionError, MemoryError and OSError among them. Errors of this package stay as
    they are. What is read from the disk is read before, by :func:`read_file`.

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
    """The value of a JSON text in UTF-8.

    Raises:
        TorchNanoError: of kind `error`: it is none, or nested too deeply.
    """
    with refusing(error, place):
        return json.loads(text.decode())


def fields_of(kind: type[_Fields], values: Any, place: str) -> _Fields:
    """A dataclass from a dict of its fields, each of the type that the class declares.

    >>> from torch_nano.arithmetic.quantization import Quantization
    >>> fields_of(Quantization, {"scale": 0.5, "zero_point": 3}, "input")
    Quantization(scale=0.5, zero_point=3, dtype='int8')
    >>> fields_of(Quantization, {"scale": 0.5, "zero_point": "3"}, "input")
    Traceback (most recent call last):
    torch_nano.errors.FileFormatError: input: zero_point is '3'; expected int

    Raises:
        FileFormatError: it is no dict, or a field is missing, unknown or of another type.
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
    """Whether a value has a type as annotations declare it."""
    if hint is Any:
        return True
    if hint is float:
        # Whole numbers, too, that a float holds exactly.
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
    # type(), as a bool is no number here.
    return type(value) is (kind or hint)
