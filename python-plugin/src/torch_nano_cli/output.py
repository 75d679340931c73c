"""What commands print: two columns for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


def show(rows: Mapping[str, object]) -> None:
    """Prints names and values in two columns."""
    grid = Table(box=None, show_header=False)
    for name, value in rows.items():
        grid.add_row(name.replace("_", " "), str(value))
    Console().print(grid)


def print_json(result: object) -> None:
    """Prints a result, such as a dataclass, as JSON."""
    print(json.dumps(_plain(result), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """A value in the types of JSON; numbers of numpy and torch as numbers, what is no number as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)
