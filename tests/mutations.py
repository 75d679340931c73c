"""Files that are nearly right: what accidents and strangers make of them."""

from __future__ import annotations

import copy
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_nano.files import archive

#: What may be in the place of any value.
FOREIGN: list[Any] = [
    None, True, 0, -1, 1 << 31, 1 << 64, 10**400, 0.5, float("nan"), float("inf"), "", "x", "\ud800", b"",
    b"x", [], {}, (), [[]], {"x": 1}, torch.zeros(0), torch.ones(3), torch.zeros((), dtype=torch.int64),
]  # fmt: skip


#: Number of them that are tried in each place.
_VALUES = 4


def bytes_of(content: bytes, other: bytes, *, count: int, seed: int) -> Iterator[bytes]:
    """Cut, changed, moved and mixed bytes of a file, with parts of another file of its kind."""
    rng = np.random.default_rng(seed)
    for length in np.unique(np.linspace(0, len(content) - 1, count, dtype=int)):
        yield content[:length]
    for _ in range(count):
        changed = bytearray(content)
        for place in rng.integers(len(changed), size=rng.integers(1, 5)):
            changed[place] = rng.integers(256)
        yield bytes(changed)
        start, stop = sorted(rng.integers(len(content) + 1, size=2).tolist())
        yield content[:start] + content[stop:]
        yield content[:stop] + content[start:]
        place = int(rng.integers(min(len(content), len(other)) + 1))
        yield content[:place] + other[place:]
        # The largest numbers, where one may stand.
        yield content[:start] + b"\xff" * int(rng.choice([1, 2, 4, 8])) + content[start + 8 :]
    yield from (b"", content + content, content + b"\0", content + rng.bytes(100), rng.bytes(500))


def sealed(content: bytes, body: bytes) -> bytes:
    """An archive with the first line of another, and a body whose checksum is right."""
    line = content[: content.index(b"\n") + 1]
    return line + hashlib.sha256(body).digest() + body


def body_of(content: bytes) -> bytes:
    """An archive without its first line and its checksum."""
    return content[content.index(b"\n") + 1 + hashlib.sha256().digest_size :]


def trees_of(tree: Any, other: Any, seed: int) -> Iterator[tuple[str, Any]]:
    """Plain data with one place changed, missing, doubled, or from another file; and which place."""
    rng = np.random.default_rng(seed)
    for path in _paths(tree):
        for index in rng.permutation(len(FOREIGN))[:_VALUES].tolist():
            yield f"{path} is foreign value {index}", _with(tree, path, FOREIGN[index])
        if path:
            *rest, last = path
            owner = _at(tree, rest)
            for value in (item for item in _items(owner) if item is not owner[last]):
                yield f"{path} is another of its siblings", _with(tree, path, value)
            if isinstance(owner, dict):
                without = {name: item for name, item in owner.items() if name != last}
                yield f"no {path}", _with(tree, rest, without)
                yield f"more than {path}", _with(tree, rest, {**owner, "extra": 1})
            elif isinstance(owner, list):
                yield f"no {path}", _with(tree, rest, owner[:last] + owner[last + 1 :])
                yield f"{path} twice", _with(tree, rest, owner[: last + 1] + owner[last:])
            try:
                yield f"{path} of another file", _with(tree, path, _at(other, path))
            except (KeyError, IndexError, TypeError):
                continue


def _paths(tree: Any) -> Iterator[list[Any]]:
    yield []
    names = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list | tuple) else ()
    )
    # All entries of a long list of numbers are read in the same way.
    for name in list(names)[:12]:
        yield from ([name, *rest] for rest in _paths(tree[name]))


def _items(owner: Any) -> list[Any]:
    items = list(owner.values()) if isinstance(owner, dict) else list(owner)
    return items[:3]


def _at(tree: Any, path: list[Any]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _with(tree: Any, path: list[Any], value: Any) -> Any:
    if not path:
        return value
    first, *rest = path
    if isinstance(tree, tuple):
        items = list(tree)
        items[first] = _with(items[first], rest, value)
        return tuple(items)
    changed = copy.copy(tree)
    changed[first] = _with(changed[first], rest, value)
    return changed


def packed(kind: str, version: int, tree: Any) -> bytes | None:
    """The archive of changed data; None if no archive can hold them."""
    try:
        return archive.pack(kind, version, tree)
    except archive.NotPlainError:
        return None


@contextmanager
def memory_for(more: int) -> Iterator[None]:
    """This process can have `more` bytes of address space than it has now, and no others."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
