"""Files that are no records, or that were changed: an error that names file and line, or a difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_nano import Device, TorchNanoError
from torch_nano.device import ReplayDifference, record, replay
from torch_nano.errors import DeviceError, RecordError

from .test_recording import IMAGES, INPUTS, lines, rewrite

#: What a file may hold in the place of any value.
FOREIGN: list[Any] = [
    None,
    True,
    False,
    -1,
    1.5,
    1 << 32,
    1 << 80,
    "",
    "!!",
    "AAAA",
    "walk\ud800",
    [],
    {},
    [1, 2],
]


@pytest.fixture
def entries(path: Path) -> list[dict[str, Any]]:
    """A record with every kind of line."""
    device = Device("sim", nano=IMAGES["lda"])
    with record(device, path, check_every=2):
        for sample in range(6):
            device.learn(INPUTS[sample], sample % 4)
        device.commit()
        device.add_class("swim")
        device.forget("swim")
        device.undo()
        with pytest.raises(DeviceError, match="nothing to take back"):
            device.undo()
        with pytest.raises(DeviceError, match="cannot do this"):
            device.train(1)
        device.save()
        device.load()
        device.write_head(device.head_state())
        device.reset()
        device.learn(INPUTS[0], 1)
        device.commit()
    return lines(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.record"


def outcome(path: Path, trainer: str = "lda") -> bytes | type[TorchNanoError]:
    """The head that a file gives, or how it is refused."""
    try:
        return replay(path, IMAGES[trainer]).head.state()
    except (RecordError, ReplayDifference) as error:
        if isinstance(error, RecordError):
            assert str(path) in str(error)
        return type(error)


def test_changed_values_are_refused(path: Path, entries: list[dict[str, Any]]) -> None:
    """Nothing but the errors of records comes out, whichever value is another or missing."""
    head = outcome(path)
    assert isinstance(head, bytes)
    refused = 0
    for line, entry in enumerate(entries):
        for name in [*entry, "extra"]:
            for value in FOREIGN:
                # Names of the model and of classes, and reasons, may be any text.
                free = name in ("name", "refused") and isinstance(value, str)
                if entry.get(name) is value or free:
                    continue
                # A sample more in the sums is found where they are looked at.
                rewrite(path, [*entries[:line], {**entry, name: value}, *entries[line + 1 :]])
                found = outcome(path)
                assert isinstance(found, type), f"line {line + 1}: {name} = {value!r}"
                refused += found is RecordError
            missing = {key: entry[key] for key in entry if key != name}
            rewrite(path, [*entries[:line], missing, *entries[line + 1 :]])
            # Whether a step was checked is no part of what it did.
            if name not in ("extra", "head_crc32"):
                assert isinstance(outcome(path), type), f"line {line + 1}: no {name}"
    assert refused > 1000


def test_missing_and_repeated_lines_are_refused(path: Path, entries: list[dict[str, Any]]) -> None:
    head = outcome(path)
    for line, entry in enumerate(entries):
        rewrite(path, [*entries[: line + 1], *entries[line:]])
        assert outcome(path) is RecordError, f"line {line + 1} twice: {entry}"
        rewrite(path, [*entries[:line], *entries[line + 1 :]])
        # Without its outcome a step may have been made or not: the file says less, and nothing wrong.
        if "request" in entry or line == 0:
            assert outcome(path) is RecordError, f"line {line + 1} missing: {entry}"
        elif line < len(entries) - 3 and "refused" not in entry and entry.get("step") != 13:
            assert outcome(path) == head, f"line {line + 1} missing: {entry}"


def test_random_bytes_are_refused(path: Path, entries: list[dict[str, Any]]) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for text in (b"5\n", b"null\n", b"[1, 2]\n", b'"a"\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"\n"):
        path.write_bytes(text)
        with pytest.raises(RecordError, match=r"device\.record(, line 1: it is|.* no record)"):
            replay(path, IMAGES["lda"])
        path.write_bytes(data + text)
        with pytest.raises(RecordError, match=rf"device\.record, line {len(entries) + 1}: it is"):
            replay(path, IMAGES["lda"])
    for seed in range(300):
        place, value = int(rng.integers(len(data))), int(rng.integers(256))
        path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
        found = outcome(path)
        assert isinstance(found, bytes) or issubclass(found, TorchNanoError), f"seed {seed}"
    path.write_bytes(rng.bytes(1000) + b"\n")
    assert outcome(path) is RecordError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[2].update(done=False), "line 3: done is False; expected true"),
        (lambda e: e[2].pop("samples"), "line 3: there is no 'samples'; expected an integer from 0"),
        (lambda e: e[1].update(kind="bits"), "line 2: there is 'kind'; expected no such field here"),
        (
            lambda e: e[1].update(target=1 << 32),
            "line 2: target is 4294967296; expected an integer from -2147",
        ),
        (lambda e: e[1].update(request="dance"), "line 2: request is 'dance'; expected one of learn, train"),
        (lambda e: e[0].pop("model_id"), "line 1: there is no 'model_id'; expected an integer from 0 to"),
        (lambda e: e[0].update(head="!!"), "line 1: head is '!!'; expected bytes in base64"),
        (lambda e: e[0].update(head="AAAA"), "line 1: head is of 3 bytes; expected a state of this model's"),
        (lambda e: e[0].update(torch_nano_record="4"), "is of version '4'; this package reads 4"),
        (lambda e: e.insert(2, dict(e[2])), "line 4: request is None; expected one of learn"),
        (lambda e: e.insert(1, {"restarted": True, "head": "AAAA"}), "line 2: head is of 3 bytes"),
        (lambda e: e.insert(1, {"restarted": 1, "head": "AAAA"}), "line 2: restarted is 1; expected true"),
    ],
)
def test_what_was_changed_is_named(
    path: Path,
    entries: list[dict[str, Any]],
    change: Callable[[list[dict[str, Any]]], object],
    message: str,
) -> None:
    changed = json.loads(json.dumps(entries))
    change(changed)
    rewrite(path, changed)
    with pytest.raises(RecordError) as caught:
        replay(path, IMAGES["lda"])
    assert message in str(caught.value)
