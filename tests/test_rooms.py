"""The package's rooms import downwards only, as ARCHITECTURE.md's table of them says."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "python-plugin/src/torch_nano"
#: The Python modules that all rooms may import.
FOUNDATIONS = ("errors.py", "arguments/", "files/")


def dotted(path: Path) -> str:
    """The name of a module by its path in the package."""
    parts = [PACKAGE.name, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in (file.relative_to(PACKAGE) for file in sorted(PACKAGE.rglob("*.py")))}


def room_of(module: str) -> str:
    """The folder of a module, or its file if it stands in the package's own folder."""
    path = FILES[module]
    return path.name if path.parent == Path() else f"{path.parent.as_posix()}/"


def imports(tree: ast.AST, module: str, types: bool) -> Iterator[str]:
    """The modules of the package that a module imports anywhere in it, inside of functions too.

    Args:
        types: those for annotations alone too, under `if TYPE_CHECKING`.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            parent = [PACKAGE.name, *FILES[module].parent.parts]
            base = parent[: len(parent) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            found = {name if name in FILES else source for name in names}
            yield from (name for name in found if name in FILES and name != PACKAGE.name)
        else:
            yield from imports(node, module, types)


def imported(module: str, types: bool) -> set[str]:
    return set(imports(ast.parse((PACKAGE / FILES[module]).read_text()), module, types)) - {module}


def table() -> dict[str, tuple[list[str], list[str]]]:
    """The rows of ARCHITECTURE.md's table: room -> its doors, the rooms it imports."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    chapter = text.partition("## Rooms of torch_nano\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in chapter.splitlines() if line.startswith("| `")]
    cells = [[re.findall("`(.+?)`", cell) for cell in row] for row in rows]
    return {room: (doors, imports) for (room,), doors, _, imports in cells}


def shows_inner_room(module: str, other: str) -> bool:
    """Whether a room's own face, its `__init__.py`, imports from a room inside of it, to export it."""
    return FILES[module].name == "__init__.py" and other.startswith(f"{module}.")


TABLE = table()


def test_the_table_has_all_rooms_and_their_doors() -> None:
    rooms = {room_of(module) for module in FILES} - {"__init__.py", *FOUNDATIONS}
    assert set(TABLE) == rooms
    missing = [
        f"{room}{door}"
        for room, (doors, _) in TABLE.items()
        for door in doors
        if not (PACKAGE / room / door).is_file()
    ]
    assert not missing


def test_the_table_goes_bottom_up() -> None:
    below: set[str] = set()
    for room, (_, imports) in TABLE.items():
        assert set(imports) <= below, f"{room} imports {set(imports) - below}, which stand in rows below it"
        below.add(room)


@pytest.mark.parametrize("room", TABLE)
def test_a_room_imports_what_the_table_says(room: str) -> None:
    found: dict[str, list[str]] = {}
    for module in FILES:
        if room_of(module) == room:
            for other in imported(module, types=True):
                if shows_inner_room(module, other):
                    continue
                found.setdefault(room_of(other), []).append(f"{module} imports {other}")
    allowed = {room, *FOUNDATIONS}
    assert set(TABLE[room][1]) == set(found) - allowed, {key: found[key] for key in set(found) - allowed}


def test_the_foundations_import_no_room() -> None:
    for module in FILES:
        if room_of(module) in FOUNDATIONS:
            others = {room_of(other) for other in imported(module, types=True)}
            assert others <= set(FOUNDATIONS), module


def test_modules_import_in_no_circle() -> None:
    modules = [module for module in FILES if module != PACKAGE.name]
    try:
        TopologicalSorter({module: imported(module, types=False) for module in modules}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_import_is_found_wherever_it_stands() -> None:
    text = """
from __future__ import annotations
from typing import TYPE_CHECKING
import torch_nano.device.client
from .. import _native
from ..training.fit import fit
from . import layout
if TYPE_CHECKING:
    from ..qat import qat_module
def late():
    from torch_nano.compile.image import layers
"""
    found = set(imports(ast.parse(text), "torch_nano.arithmetic.tensors", types=True))
    names = ("device.client", "training.fit", "arithmetic.layout", "qat.qat_module", "compile.image")
    assert found == {f"torch_nano.{name}" for name in names}
    found = set(imports(ast.parse(text), "torch_nano.arithmetic.tensors", types=False))
    assert "torch_nano.qat.qat_module" not in found and len(found) == 4
