"""All refusals in the sources, with which those that the fuzzers have met are compared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CORE = ROOT / "nano-core/src"
_DEVICE = ROOT / "esp32-app/device/src"
_PACKAGE = ROOT / "python-plugin/src/torch_nano"
#: The errors that readers of files raise; a module that knows one is a reader.
_FILE_ERRORS = {"FileFormatError", "RecordError", "SampleFileError", "CheckpointError"}

_TEXT = r'"([^"]+)"'
#: Patterns of errors in nano-core's sources, and their variants.
_NAMED = [
    (rf"Error::(Field|Length|Full) \{{\s*name: {_TEXT}", None),
    (rf"\bfield\(\s*{_TEXT}", "Field"),
    (rf"check_length\(\s*{_TEXT}", "Length"),
    (rf"\brule: {_TEXT}", "Layer"),
    (rf"require!\([^\"]*{_TEXT}", "Layer"),
    # The writer's `layer.refused` is another error.
    (rf"(?<!\.)\brefused\(\s*{_TEXT}", "Layer"),
    (rf"\brequest: {_TEXT}", "Unsupported"),
]
#: Statements that choose a text first: every text in them counts.
_CHOSEN = [(r"let rule = match.*?\n\s*\};", "Layer"), (r"for \(name, [a-z]+\) in \[.*?\]", "Length")]
#: Variants without a text.
_PLAIN = re.compile(r"^    (\w+)(?: \{|\(|,)", re.MULTILINE)


def core() -> set[str]:
    """Refusals of nano-core and the session: `Error::Variant rule`, as the harness notes them."""
    sources = [
        _without_tests(file.read_text()) for folder in (_CORE, _DEVICE) for file in folder.rglob("*.rs")
    ]
    rules = set()
    for source in sources:
        for pattern, variant in _NAMED:
            for found in re.findall(pattern, source):
                own, text = (variant, found) if variant else found
                rules.add(f"Error::{own} {text}")
        for pattern, variant in _CHOSEN:
            for statement in re.findall(pattern, source, re.DOTALL):
                rules |= {f"Error::{variant} {text}" for text in re.findall(_TEXT, statement)}
    named = {rule.split()[0] for rule in rules}
    variants = _variants(_CORE, "Error")
    return rules | {variant for variant in variants if variant not in named}


def device() -> set[str]:
    """Refusals of devices: the variants of `Failure`, `StorageError` and `UpdateError`."""
    return set().union(*(_variants(_DEVICE, enum) for enum in ("Failure", "StorageError", "UpdateError")))


def files() -> set[str]:
    """Refusals of file readers: each `raise`, by file and line."""
    return {f"{path.relative_to(_PACKAGE)}:{node.lineno}" for path, node in _raises()}


def file_rules_met(places: list[str]) -> set[str]:
    """The `raise` statements at these places; a place is any line of one."""
    met = set()
    for path, node in _raises():
        name = str(path.relative_to(_PACKAGE))
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if any(f"{name}:{line}" in places for line in lines):
            met.add(f"{name}:{node.lineno}")
    return met


def _raises() -> Iterator[tuple[Path, ast.Raise]]:
    for path in sorted(_PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names & _FILE_ERRORS:
            for node in ast.walk(tree):
                if isinstance(node, ast.Raise) and node.exc is not None:
                    yield path, node


def _variants(folder: Path, enum: str) -> set[str]:
    """The variants of an enum that one of the sources in a folder has."""
    declared = re.compile(rf"^pub enum {enum} \{{\n(.*?)^\}}", re.DOTALL | re.MULTILINE)
    bodies = [found[1] for file in folder.rglob("*.rs") if (found := declared.search(file.read_text()))]
    if len(bodies) != 1:
        raise ValueError(f"{len(bodies)} files in {folder} declare the enum {enum}; expected one")
    return {f"{enum}::{name}" for name in _PLAIN.findall(bodies[0])}


def _without_tests(source: str) -> str:
    """A source without comments and without the tests at its end."""
    code = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    return code.split("#[cfg(test)]\nmod tests")[0]
