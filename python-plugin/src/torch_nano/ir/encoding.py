"""Operators from plain data: for files, and for custom operators, which cannot take objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .operator import Operator


def decode(entry: dict[str, Any]) -> Operator:
    """The inverse of :meth:`Operator.encoded`.

    Raises:
        KeyError: there is no such operator.
        TypeError: it has other attributes.

    >>> from torch_nano.ops.add import Add
    >>> decode(Add(clamp_low=0.0).encoded())
    Add(clamp_low=0.0, clamp_high=None)
    """
    attributes = {name: _as_tuples(value) for name, value in entry["attributes"].items()}
    return operator_named(entry["operator"])(**attributes)


def operator_named(name: str) -> type[Operator]:
    """The class of the operator with this name.

    Raises:
        KeyError: there is no such operator.
    """
    # As Any: mypy does not accept an abstract class as a type.
    root: Any = Operator
    return {operator.__name__: operator for operator in _subclasses(root)}[name]


@lru_cache(maxsize=256)
def decode_text(text: str) -> Operator:
    """The operator of an :attr:`Operator.text`."""
    return decode(json.loads(text))


def _subclasses(operator: type[Operator]) -> Iterator[type[Operator]]:
    for subclass in operator.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _as_tuples(value: Any) -> Any:
    """Converts JSON's lists to the tuples of operators."""
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
