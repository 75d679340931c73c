"""Checks of data, model and loss before the first epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, TorchNanoError
from ..modules.explain import is_one_sample, missing_batch, run
from ..modules.modes import set_mode
from .data import samples_in, split_batch, to_device
from .objective import Loss, Objective, objective_of


@dataclass(frozen=True)
class Checked:
    """Results of the checks."""

    objective: Objective
    #: Batches in one epoch.
    train_batches: int
    #: 0 without validation data.
    val_batches: int


def check_data(
    model: nn.Module, loss: Loss | None, train: Iterable[Any], val: Iterable[Any] | None, device: torch.device
) -> Checked:
    """Reads all data once, and runs the model on the first batch of each.

    The model runs as in the training, in train mode for the training data: the caller protects its buffers,
    its modes and the random state.

    Raises:
        InputError: no batches, labels that are not classes, or data, model and loss that do not fit.
    """
    objective: Objective | None = None
    batches = {"train": 0, "val": 0}
    for name, data in (("train", train), ("val", val)):
        if data is None:
            continue
        count, seen_alone = 0, False
        for batch in data:
            where = f"batch {count} of {name}"
            x, target = split_batch(batch, where)
            # A batch norm cannot train on one value: tries the first batch of a single sample, too.
            alone = samples_in(x, where) == 1 and name == "train" and not seen_alone
            if count == 0 or alone:
                seen_alone |= alone
                set_mode(model, name == "train")
                x, target = to_device(x, device), to_device(target, device)
                with torch.no_grad():
                    output = run(model, x, where)
            if count == 0:
                first = _objective(model, loss, (x, target), output, where)
                objective = objective or first
                _check_loss(objective, output, target, where)
            assert objective is not None
            objective.check_labels(target, where)
            count += 1
        if count == 0:
            raise InputError(
                f"{name} has no batches; expected at least one (a loader with drop_last=True drops "
                "everything when it has fewer samples than one batch)"
            )
        batches[name] = count
    assert objective is not None
    return Checked(objective, batches["train"], batches["val"])


def _objective(
    model: nn.Module, loss: Loss | None, batch: tuple[Any, Any], output: Any, where: str
) -> Objective:
    """The objective for a first batch and its output; checks the labels, and raises an InputError if they do
    not fit.
    """
    x, target = batch
    try:
        objective = objective_of(loss, output, target, where)
    except InputError as error:
        if is_one_sample(model, x):
            raise InputError(f"{where}: {missing_batch(x)}") from error
        raise
    objective.check_labels(target, where)
    return objective


@torch.no_grad()
def _check_loss(objective: Objective, output: Any, target: Any, where: str) -> None:
    """Raises an InputError unless the loss is one number."""
    try:
        value = objective(output, target)
    except TorchNanoError:
        raise
    except Exception as error:
        name = getattr(objective.loss, "__name__", type(objective.loss).__name__)
        raise InputError(f"{where}: the loss {name} fails: {error}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = (
            f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        )
        raise InputError(
            f"{where}: the loss has {given}; expected one number, the mean over the batch (reduction='mean')"
        )
