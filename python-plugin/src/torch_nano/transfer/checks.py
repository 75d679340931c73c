"""What can be told to be wrong before the first epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InputError, TorchNanoError
from .data import samples_in, split_batch, to_device
from .objective import Loss, Objective, objective_of
from .watching import describe, tensors_in, uncompiled, watching

#: What a layer says about its input: class -> (attribute, axis, dimensions without a batch).
_EXPECTED = (
    (nn.Linear, "in_features", -1),
    (nn.modules.conv._ConvNd, "in_channels", 1),
    (nn.modules.batchnorm._BatchNorm, "num_features", 1),
)


@dataclass(frozen=True)
class Checked:
    """What the checks found out."""

    objective: Objective
    #: Batches in one epoch.
    train_batches: int
    #: 0 without validation data.
    val_batches: int


def check_data(
    model: nn.Module, loss: Loss | None, train: Iterable[Any], val: Iterable[Any] | None, device: torch.device
) -> Checked:
    """Goes through all data once, and through the model with the first batch of each.

    It runs as it will, in train mode for the training data: the caller protects its buffers, its modes and
    the random state.

    Raises:
        InputError: no batches, labels that are no classes, or data, model and loss that do not fit.
    """
    if any(is_lazy(parameter) for parameter in (*model.parameters(), *model.buffers())):
        raise InputError(
            "the model has lazy modules whose shapes are not known yet; call it with one batch before fit"
        )
    model = uncompiled(model)
    objective: Objective | None = None
    batches = {"train": 0, "val": 0}
    for name, data in (("train", train), ("val", val)):
        if data is None:
            continue
        count = 0
        for batch in data:
            where = f"batch {count} of {name}"
            x, target = split_batch(batch, where)
            samples_in(x, where)
            if count == 0:
                model.train(name == "train")
                x, target = to_device(x, device), to_device(target, device)
                output = _run(model, x, where)
                if objective is None:
                    objective = objective_of(loss, output, target, where)
                else:
                    objective_of(loss, output, target, where)
                objective.check_labels(target, where)
                _check_loss(objective, output, target, where)
            else:
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


@torch.no_grad()
def _run(model: nn.Module, x: Any, where: str) -> Any:
    """The model's output; if it fails, an InputError that says where."""
    try:
        return model(x)
    except TorchNanoError as error:
        # A model or a strategy has explained it itself.
        error.add_note(f"in fit: {where}")
        raise
    except Exception as error:
        raise InputError(f"{where}: the model cannot take it: {_explain(model, x, error)}") from error


def _explain(model: nn.Module, x: Any, error: Exception) -> str:
    """Which module fails, by what it gets and what it expects."""
    running: list[tuple[str, nn.Module, Any]] = []
    made: list[tuple[str, nn.Module]] = []

    def before(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        running.append((name, module, arguments))

    def after(name: str, module: nn.Module, output: Any) -> None:
        running.pop()
        made.append((name, module))

    with watching(model, before=before, after=after):
        try:
            model(x)
        except Exception as again:
            error = again
    if not running:
        return str(error)
    name, module, arguments = running[-1]
    given = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(arguments)) or "no tensors"
    origin = f" from {describe(*made[-1])}" if made else ""
    text = f"{describe(name, module)} gets {given}{origin}"
    for kind, attribute, axis in _EXPECTED:
        if isinstance(module, kind) and isinstance(arguments[0], Tensor) and arguments[0].dim() > 1:
            actual, expected = arguments[0].shape[axis], getattr(module, attribute)
            if actual != expected:
                return (
                    f"{text}, but expects {attribute}={expected}; make it {attribute}={actual}, or give it "
                    "what it expects"
                )
    return f"{text} and fails: {error}"


@torch.no_grad()
def _check_loss(objective: Objective, output: Any, target: Any, where: str) -> None:
    """Raises an InputError unless the loss gives one number."""
    try:
        value = objective(output, target)
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
