"""The kinds of files that the package reads: examples of each, their mutations and their readers."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import changes
import numpy as np
import torch
import torch_nano as tn
from changes import Change
from torch_nano import _native
from torch_nano.cli.head_file import load_head, save_head
from torch_nano.cli.labels import Labels
from torch_nano.cli.sample_files import read_samples
from torch_nano.files import archive

_X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
_Y = torch.arange(30) % 3


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    suffix: str
    seeds: list[bytes]
    changes: list[Change]
    #: Raises an error of torch_nano for a file that it refuses, and AssertionError at a finding.
    read: Callable[[Path], object]


def _plain(outputs: int = 3) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, outputs))


def _nano(head: Any, **settings: Any) -> tn.NanoModule:
    model = _plain()
    tn.freeze(model, "0")
    return tn.to_nano(model, _X[:2], calibrate=_X, labels=["a", "b", "c"], head=head, **settings)


def _convolutional() -> tn.NanoModule:
    torch.manual_seed(0)
    layers = [torch.nn.Conv1d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool1d(2), torch.nn.Flatten()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 3), torch.nn.Softmax(1))
    x = torch.randn(8, 2, 8, generator=torch.Generator().manual_seed(0))
    return tn.to_nano(model, x[:2], calibrate=x)


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind by name; `folder` is for temporary files."""
    heads = [tn.heads.SGD(0.05), tn.heads.LDA(capacity=4), tn.heads.Prototype()]
    modules = [*(_nano(head) for head in heads), _nano(tn.heads.SGD(0.05), train_last=2), _convolutional()]
    return {
        "model": _models(modules, folder),
        "record": _records(modules[1], folder),
        "head": _heads(modules[0], folder),
        "checkpoint": _checkpoints(folder),
        "npz": _archives(),
        "csv": _tables(),
        "series": _series(),
    }


def _saved(save: Callable[[Path], object], folder: Path) -> bytes:
    file = folder / "saved"
    save(file)
    content = file.read_bytes()
    file.unlink()
    return content


def _plain_data(content: bytes, change: Callable[[Any], Any]) -> bytes:
    """An archive of the package, with its data changed by `change`."""
    _, kind, version = content.split(b"\n")[0].decode().split()
    return archive.pack(kind, int(version), change(archive.unpack(kind, int(version), content)))


def _values(content: bytes, rng: random.Random) -> bytes:
    """An archive of the package with one of its values changed."""
    try:
        return _plain_data(content, lambda data: changes.value(data, rng))
    except (tn.TorchNanoError, ValueError):  # an earlier change made it unreadable
        return changes.any_bytes(content, rng)


def _models(modules: list[tn.NanoModule], folder: Path) -> Kind:
    def read(path: Path) -> None:
        try:
            nano = tn.load(path)
        except tn.errors.FileFormatError as error:
            # A forged model would have a forged id, too: corrects it.
            written = re.search(r"of its layers this version writes ([0-9a-f]{8})", str(error))
            if written is None:
                raise
            identity = {"id": int(written[1], 16)}
            path.write_bytes(_plain_data(path.read_bytes(), lambda data: data | identity))
            nano = tn.load(path)
        x = torch.randn(2, *nano.input_shape, generator=torch.Generator().manual_seed(1))
        assert nano.verify("host", x), "the graph of a model that was accepted is not its image"

    seeds = [_saved(module.save, folder) for module in modules]
    return Kind(".nanomodel", seeds, [_values, _values, changes.signed, changes.any_bytes], read)


def _records(nano: tn.NanoModule, folder: Path) -> Kind:
    file = folder / "made.record"
    with tn.Device("sim", nano=nano) as device, tn.device.record(device, file):
        device.fit(_X[:6], _Y[:6])
        device.add_class("new")
        device.undo()
        device.forget(1)
        device.commit()
        device.reset()
    content = file.read_bytes()
    return Kind(
        ".record",
        [content],
        [changes.json_lines, changes.any_bytes],
        lambda path: tn.device.replay(path, nano),
    )


def _heads(nano: tn.NanoModule, folder: Path) -> Kind:
    head = nano.head
    assert head is not None
    content = _saved(lambda path: save_head(path, nano.id, head.state()), folder)
    start = len(content) - len(head.state())

    def signed(content: bytes, rng: random.Random) -> bytes:
        """Another state, with a correct checksum."""
        identity, state = content[start - 8 : start - 4], changes.any_bytes(content[start:], rng)
        return content[: start - 4] + _native.crc32(identity + state).to_bytes(4, "little") + state

    def read(path: Path) -> None:
        before = head.state()
        try:
            head.load(load_head(path, nano.id))
        except tn.TorchNanoError:
            assert head.state() == before, "a refused head changed the model's"
            raise

    return Kind(".head", [content], [signed, changes.any_bytes], read)


def _checkpoints(folder: Path) -> Kind:
    def fit(model: torch.nn.Module, path: Path) -> None:
        torch.manual_seed(1)
        tn.fit(model, (_X, _Y), epochs=2, batch_size=16, checkpoint=path, progress=False)

    def read(path: Path) -> None:
        model = _plain()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        try:
            fit(model, path)
        except tn.TorchNanoError:
            same = all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
            assert same, "a refused checkpoint changed the model"
            raise

    content = _saved(lambda path: fit(_plain(), path), folder)
    return Kind(".checkpoint", [content], [_values, _values, changes.signed, changes.any_bytes], read)


def _archives() -> Kind:
    seeds = []
    for x, y in ((_X.numpy(), _Y.numpy()), (_X.numpy().astype(np.int8), np.array(["a", "b", "c"] * 10))):
        buffer = io.BytesIO()
        np.savez(buffer, x=x, z=x, y=y)
        seeds.append(buffer.getvalue())

    def read(path: Path) -> None:
        refusals = []
        for names in ((), ("x", "z")):
            try:
                _read_samples(path, names)
            except tn.TorchNanoError as error:
                refusals.append(error)
        if len(refusals) == 2:
            raise refusals[0]

    return Kind(".npz", seeds, [changes.archive({".npy": changes.npy}), changes.any_bytes], read)


def _tables() -> Kind:
    rows = ["u,v,label", "1.5,2,a", '-3e2,"4",b', "", "0,.5,c"]
    seeds = ["\n".join(rows), "\n".join(rows).replace(",", ";"), "﻿" + "\r\n".join(rows)]
    encoded = [seed.encode() for seed in seeds]
    return Kind(".csv", encoded, [changes.table_text, changes.any_bytes], _read_samples)


def _series() -> Kind:
    rows = ["recording,time,label,group,ax,ay", *(f"1,{n / 50},walk,anna,{n},-1e{n}" for n in range(4))]
    seeds = ["\n".join(rows).encode(), b"time;ax\n0;1\n1;2\n5;3", b"label,ax\nwalk,1\nwalk,2\n,2\nrun,3"]
    return Kind(".csv", seeds, [changes.table_text, changes.any_bytes], lambda path: tn.windows(path, 2, 1))


def _read_samples(path: Path, names: Sequence[str] = ()) -> None:
    table = read_samples(path, names)
    refusals = []
    for target in ("class", "labels", "value"):
        try:
            Labels(target, 3, ["a", "b", "c"]).read(table)
        except tn.TorchNanoError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[-1]
