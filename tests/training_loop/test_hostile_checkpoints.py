"""Damaged and hostile checkpoints: loaded as a whole, or not at all."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from files_at_risk import killed_at_each_step
from mutations import body_of, bytes_of, memory_for, packed, sealed, trees_of
from torch.optim.lr_scheduler import StepLR
from torch_nano.files import archive
from torch_nano.training.checkpoint import Checkpoint, TrainingState
from transfer.task import data, network, state

SEED = 4
ROOM = 1 << 30


class Taken(Exception):
    """The checkpoint was taken over: the training goes on."""


def train(path: Path, *, epochs: int, start: int = 0, stop: bool = False) -> Any:
    """What a training holds that goes on from a checkpoint, before and after that."""
    model = network(start)
    tn.freeze(model, "backbone.0")
    optimizer = torch.optim.SGD(
        filter(lambda one: one.requires_grad, model.parameters()), lr=0.1, momentum=0.9
    )
    scheduler = StepLR(optimizer, 2)

    def held() -> Any:
        modes = [module.training for module in model.modules()]
        drawn = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
        parts = (state(model), optimizer.state_dict(), scheduler.state_dict(), tn.frozen(model), modes, drawn)
        return copy.deepcopy(parts)

    def stops(epoch: int, history: tn.training.History) -> None:
        raise Taken

    before = held()
    try:
        tn.fit(
            model,
            data(),
            data(50, seed=30),
            epochs=epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            early_stopping=tn.EarlyStopping("val_loss", patience=9),
            seed=SEED,
            progress=False,
            checkpoint=path,
            callbacks=[stops] if stop else [],
        )
    except (Taken, tn.errors.TrainingDivergedError):  # other numbers, with which the training goes on
        return None
    except (tn.errors.FileFormatError, tn.errors.CheckpointError) as error:
        assert len(str(error)) < 3000
        assert same(held(), before), f"a refusal has changed something: {error}"
        return error
    return None


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Checkpoints of two trainings, of which the second has another model."""
    folder = tmp_path_factory.mktemp("saved")
    assert train(folder / "run", epochs=2) is None
    tn.fit(network(7), data(), epochs=3, seed=SEED, progress=False, checkpoint=folder / "other")
    return (folder / "run").read_bytes(), (folder / "other").read_bytes()


def outcome(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return train(path, epochs=3, start=9, stop=True)


def test_a_good_checkpoint_is_loaded(saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    assert outcome(tmp_path / "run", saved[0]) is None
    assert isinstance(outcome(tmp_path / "run", saved[1]), tn.errors.CheckpointError)


def test_checkpoints_with_changed_bytes_are_refused(saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    with memory_for(ROOM):
        for number, changed in enumerate(bytes_of(*saved, count=20, seed=SEED)):
            assert changed == saved[0] or outcome(tmp_path / "run", changed), f"file {number}"
        for changed in bytes_of(body_of(saved[0]), body_of(saved[1]), count=20, seed=SEED + 1):
            outcome(tmp_path / "run", sealed(saved[0], changed))


@pytest.mark.parametrize(
    "part", ["arguments", "model", "frozen", "trainable", "scheduler", "history", "random"]
)
def test_checkpoints_with_changed_values_are_refused_or_right(
    part: str, saved: tuple[bytes, bytes], tmp_path: Path
) -> None:
    tree, other = (archive.unpack("training", 2, content) for content in saved)
    taken = []
    with memory_for(ROOM):
        for where, changed in trees_of(tree[part], other[part], SEED):
            content = packed("training", 2, {**tree, part: changed})
            if content not in (None, saved[0]) and outcome(tmp_path / "run", content) is None:
                taken.append(where)
    # Numbers may be any others of their kind: weights, losses, states of generators, steps of a scheduler.
    kinds = ("of another file", "of its siblings", *(f"foreign value {value}" for value in (2, 3, 22)))
    assert part not in ("arguments", "model") or [one for one in taken if not one.endswith(kinds)] == []


@pytest.mark.parametrize(("part", "kind"), [("frozen", "modules"), ("trainable", "parameters")])
def test_unknown_names_are_refused(part: str, kind: str, saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Nothing would be frozen by them, or trained, and nobody would know."""
    tree = archive.unpack("training", 2, saved[0])
    for names in ([*tree[part], "nothing"], ["nothing"]):
        content = packed("training", 2, {**tree, part: names})
        assert content is not None
        error = outcome(tmp_path / "run", content)
        assert isinstance(error, tn.errors.FileFormatError)
        assert f"'nothing' is among its {part} {kind}; the model has none of that name" in str(error)


def test_wrong_optimizer_groups_are_refused(saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    tree, other = (archive.unpack("training", 2, content) for content in saved)
    groups = tree["optimizer"]["param_groups"]
    taken = []
    with memory_for(ROOM):
        for where, changed in trees_of(groups, other["optimizer"]["param_groups"], SEED):
            optimizer = {**tree["optimizer"], "param_groups": changed}
            content = packed("training", 2, {**tree, "optimizer": optimizer})
            if content not in (None, saved[0]) and outcome(tmp_path / "run", content) is None:
                taken.append(where)
    # Another number in the place of one.
    assert all("foreign" in where or "sibling" in where or "another file" in where for where in taken)


def test_checkpoints_mixed_from_two_are_refused_or_right(saved: tuple[bytes, bytes], tmp_path: Path) -> None:
    tree, other = (archive.unpack("training", 2, content) for content in saved)
    for part in ("arguments", "optimizer", "scheduler"):
        mixed = packed("training", 2, {**tree, part: other[part]})
        assert outcome(tmp_path / "run", mixed), part


def test_a_killed_training_leaves_the_checkpoint_before_or_the_next(tmp_path: Path) -> None:
    path, model, seen = tmp_path / "run", network(), set()
    history = tn.fit(model, data(), epochs=1, seed=SEED, progress=False, checkpoint=path)
    before = path.read_bytes()
    optimizer = torch.optim.AdamW(model.parameters())
    twice = tn.training.History([*history, *history])
    trained = TrainingState(model, optimizer, None, twice, None, torch.device("cpu"), [])
    checkpoint = Checkpoint(path, archive.unpack("training", 2, before)["arguments"], 2)
    for _ in killed_at_each_step(lambda: checkpoint.write(trained)):
        seen.add(len(archive.unpack("training", 2, path.read_bytes())["history"]["epochs"]))
        path.write_bytes(before)
    assert seen == {1, 2}
