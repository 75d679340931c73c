"""Mutations of files that keep their format valid: archives get correct checksums, JSON stays JSON."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import random
import zipfile
from collections.abc import Callable
from typing import Any

import torch

#: Mutates a file's content.
Change = Callable[[bytes, random.Random], bytes]

#: Numbers at the ends of ranges.
NUMBERS = [
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63,
    2**64,
    10**40,
]
#: Replacements of any value.
_VALUES: list[Any] = [
    None,
    True,
    "",
    "\0",
    "x" * 5000,
    [],
    {},
    [[]],
    math.nan,
    math.inf,
    -0.0,
    1e308,
    0.5,
    *NUMBERS,
]
_DIGEST_LENGTH = hashlib.sha256().digest_size
#: Unpacked bytes of an archive a thousandth of this size.
_BOMB = 1 << 30


def any_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flips bits, and inserts, drops, copies or cuts off bytes."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(data) + 1)
        span = rng.choice([1, 1, 2, 4, 16, 200])
        match rng.randrange(7):
            case 0 | 1 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data[place : place + 1] = rng.randbytes(1)
            case 3:
                data[place:place] = rng.randbytes(span)
            case 4:
                del data[place : place + span]
            case 5:
                other = rng.randrange(len(data) + 1)
                data[place : place + span] = data[other : other + span]
            case _:
                if rng.random() < 0.2:
                    del data[place:]
                else:
                    data[place : place + 4] = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "little")
    return bytes(data)


def value(given: Any, rng: random.Random) -> Any:
    """A value of dicts, lists, tensors and plain values with one of them changed, dropped or doubled."""
    if isinstance(given, torch.Tensor) and rng.random() < 0.8:
        return _tensor(given, rng)
    if isinstance(given, tuple) and given and rng.random() < 0.9:
        items = value(list(given), rng)
        return tuple(items) if isinstance(items, list) else items
    if isinstance(given, dict) and given and rng.random() < 0.9:
        changed = copy.copy(given)
        key = rng.choice(list(changed))
        match rng.randrange(12):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice([key + "x" if isinstance(key, str) else 7, ""])] = changed[key]
            case 2:
                changed[key] = changed[rng.choice(list(changed))]
            case _:
                changed[key] = value(changed[key], rng)
        return changed
    if isinstance(given, list) and given and rng.random() < 0.9:
        items = [*given]
        index = rng.randrange(len(items))
        match rng.randrange(10):
            case 0:
                del items[index]
            case 1:
                items.insert(index, items[rng.randrange(len(items))])
            case 2:
                items[index] = items[rng.randrange(len(items))]
            case _:
                items[index] = value(items[index], rng)
        return items
    if isinstance(given, int) and not isinstance(given, bool) and rng.random() < 0.5:
        return given + rng.choice([-1, 1, 2, 128])
    if isinstance(given, str) and given and rng.random() < 0.5:
        return any_bytes(given.encode(), rng).decode(errors="replace")
    return rng.choice(_VALUES)


def _tensor(given: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A tensor with another dtype or shape, or other elements."""
    match rng.randrange(5):
        case 0:
            dtypes = [torch.int8, torch.int32, torch.int64, torch.float16, torch.float64, torch.bool]
            return given.to(rng.choice(dtypes))
        case 1:
            return given.reshape(-1)
        case 2:
            return given[..., :-1] if given.dim() else given.reshape(1, 1)
        case 3:
            return given.repeat(rng.choice([1, 2, 3]), *[1] * given.dim())
        case _:
            changed = given.clone()
            extremes = [0, 1, -1, 127, -128, 2**31 - 1, 1e38, math.nan, math.inf]
            if changed.numel():
                extreme = torch.tensor(rng.choice(extremes)).to(changed.dtype)
                changed.view(-1)[rng.randrange(changed.numel())] = extreme
            return changed


def signed(content: bytes, rng: random.Random) -> bytes:
    """Mutates a file of a line, a SHA-256 and a safetensors archive, and corrects the SHA-256."""
    line, start = content[: content.find(b"\n") + 1], content.find(b"\n") + 1 + _DIGEST_LENGTH
    body = content[start:]
    length = int.from_bytes(body[:8], "little")
    if rng.random() < 0.5 and 0 < length < len(body):
        header = json_text(body[8 : 8 + length], rng)
        body = len(header).to_bytes(8, "little") + header + body[8 + length :]
    else:
        body = any_bytes(body, rng)
    return line + hashlib.sha256(body).digest() + body


def json_text(content: bytes, rng: random.Random) -> bytes:
    """JSON with a changed value, or nested too deeply for any parser."""
    if rng.random() < 0.03:
        return b"[" * 100_000
    try:
        return json.dumps(value(json.loads(content), rng)).encode()
    except (ValueError, RecursionError):
        return any_bytes(content, rng)


def json_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines of JSON with one line changed, dropped, doubled or moved."""
    lines = content.split(b"\n")
    index = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            del lines[index]
        case 1:
            lines.insert(index, lines[index])
        case 2:
            lines.insert(rng.randrange(len(lines)), lines.pop(index))
        case _:
            lines[index] = json_text(lines[index], rng)
    return b"\n".join(lines)


def table_text(content: bytes, rng: random.Random) -> bytes:
    """A CSV file with one field changed."""
    rows = [row.split(b",") for row in content.split(b"\n")]
    row = rng.choice(rows)
    fields = [
        b"",
        b"nan",
        b"1e400",
        b'"',
        b'"a\nb"',
        b"1,5",
        b"label",
        b"\xff",
        b"\0",
        b"9" * 5000,
        b"a,b",
        b"\r",
    ]
    row[rng.randrange(len(row))] = rng.choice(fields)
    return b"\n".join(b",".join(row) for row in rows)


def npy(content: bytes, rng: random.Random) -> bytes:
    """An array with another shape, dtype or order in its header, or with other bytes."""
    header_end = content.find(b"\n") + 1
    if header_end == 0 or rng.random() < 0.4:
        return any_bytes(content, rng)
    header = content[:header_end]
    wanted = [
        (b"'fortran_order': False", b"'fortran_order': True"),
        (b"(", b"(" + str(rng.choice(NUMBERS)).encode() + b","),
        (b",)", b"," + str(rng.choice(NUMBERS)).encode() + b")"),
        (b"|u1", rng.choice([b"<f4", b"|O", b"|S9", b"<c8", b"|b1", b"<M8[s]", b"|V4"])),
        (b"<f4", rng.choice([b"<f8", b"|O", b">f4", b"<U2", b"<f2", b"<i4"])),
        (b"|i1", rng.choice([b"|u1", b"<i8", b"<f4"])),
        (b"<i8", rng.choice([b"<u8", b"<f4", b"|b1"])),
    ]
    old, new = rng.choice(wanted)
    return header.replace(old, new, 1) + content[header_end:]


def _entries(content: bytes) -> dict[str, bytes]:
    """The members of an archive; empty if earlier changes made it unreadable."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            small = [info for info in archive.infolist() if info.file_size < 1 << 20]
            return {info.filename: archive.read(info) for info in small}
    except Exception:  # of a damaged archive, zipfile raises errors of any kind
        return {}


def archive(members: dict[str, Change]) -> Change:
    """Mutates members of a zip archive, each by its own mutation if it has one here, and packs it again."""

    def change(content: bytes, rng: random.Random) -> bytes:
        entries = _entries(content)
        if not entries or rng.random() < 0.2:
            return any_bytes(content, rng)
        name = rng.choice(list(entries))
        match rng.randrange(12):
            case 0:
                del entries[name]
            case 1:
                entries[rng.choice([name + "x", "../up", "1.npy", "", "0.weights.npy"])] = entries[name]
            case 2:
                entries[name] = entries[rng.choice(list(entries))]
            case 3 if rng.random() < 0.05:
                entries[name] = bytes(_BOMB)
            case _:
                own = next((change for end, change in members.items() if name.endswith(end)), any_bytes)
                entries[name] = own(entries[name], rng)
        buffer = io.BytesIO()
        method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
        with zipfile.ZipFile(
            buffer, "w", zipfile.ZIP_DEFLATED if _BOMB in map(len, entries.values()) else method
        ) as new:
            for member, data in entries.items():
                new.writestr(zipfile.ZipInfo(member or "empty"), data, compress_type=new.compression)
        return buffer.getvalue()

    return change
