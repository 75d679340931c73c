"""Diagnosis of diverged trainings: the first module with NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TorchNanoError, TrainingDivergedError
from ..modules.backup import Backup
from ..modules.inputs import call
from ..modules.watching import describe, tensors_in, watching


@dataclass(frozen=True)
class Place:
    """A position in a training."""

    #: From 0.
    epoch: int
    #: From 0.
    batch: int
    #: "train" or "val".
    data: str
    #: Name of the parameter group -> its learning rate.
    learning_rates: dict[str, float]


def loss_error(
    model: nn.Module, x: Any, backup: Backup, what: str | TorchNanoError, place: Place
) -> TrainingDivergedError:
    """The error for a batch whose loss is not finite; restores the model first.

    Args:
        what: "the loss is nan", or the model's own error.
    """
    module, reason = _first_not_finite(model, x)
    backup.restore()
    if isinstance(what, TorchNanoError):
        return _error(place, module or what.module_path, f"{what}: {reason}" if reason else str(what))
    return _error(place, module, f"{what}: {reason or 'all weights and outputs of modules are finite'}")


def gradient_error(
    parameters: dict[str, nn.Parameter], backup: Backup, place: Place
) -> TrainingDivergedError | None:
    """The error for a batch with a gradient that is not finite, after the model is restored; None if all
    gradients are finite.
    """
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    wrong = _names_not_finite(gradients)
    if not wrong:
        return None
    backup.restore()
    # The last one: backpropagation reaches it first.
    return _error(place, wrong[-1].rpartition(".")[0], f"the gradient of {wrong[-1]!r} is not finite")


def weight_error(parameters: dict[str, nn.Parameter], place: Place) -> TrainingDivergedError | None:
    """The error for a step that made a parameter NaN or infinite; None if all are finite."""
    wrong = _names_not_finite({name: p.detach() for name, p in parameters.items()})
    if not wrong:
        return None
    return _error(
        place,
        wrong[0].rpartition(".")[0],
        f"the steps up to this one have made {wrong[0]!r} NaN or infinite{_narrow(parameters[wrong[0]])}",
        "these weights",
    )


def _error(
    place: Place, module: str, text: str, held: str = "what it held before that batch"
) -> TrainingDivergedError:
    rates = ", ".join(f"{name} {rate:g}" for name, rate in place.learning_rates.items())
    return TrainingDivergedError(
        f"epoch {place.epoch}, batch {place.batch} of {place.data}: {text}. Learning rates: {rates}. The "
        "model "
        f"holds {held}. Try a smaller learning rate first",
        epoch=place.epoch,
        batch=place.batch,
        module=module,
        learning_rates=place.learning_rates,
    )


def _narrow(parameter: Tensor) -> str:
    """A hint for a parameter in half precision; "" for others."""
    if parameter.dtype != torch.float16:
        return ""
    return " in float16, which overflows in optimizers: train in float32 (model.float())"


def _names_not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The names of the tensors with NaN or infinity."""
    # Fast path: one norm of all tensors, which may overflow although all numbers are finite.
    values = [_values(tensor) for tensor in tensors.values() if tensor.is_floating_point()]
    if not values or torch.nn.utils.get_total_norm(values).isfinite():
        return []
    return [name for name, tensor in tensors.items() if not all_finite([tensor])]


def _first_not_finite(model: nn.Module, x: Any) -> tuple[str, str]:
    """The first module, in forward order, whose parameter or output is not finite, and a sentence about it;
    "" and "" if all are finite.
    """
    found: list[tuple[str, str]] = []
    bad_input = " (the batch's inputs are not finite already)" if not all_finite(tensors_in(x)) else ""

    def before(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        for own, parameter in module.named_parameters(recurse=False):
            if not found and not all_finite([parameter]):
                found.append((name, f"the parameter {own!r} of {describe(name, module)} is not finite"))

    def after(name: str, module: nn.Module, output: Any) -> None:
        if not found and not all_finite(tensors_in(output)):
            found.append((name, f"the output of {describe(name, module)} is not finite{bad_input}"))

    # A model may itself raise for values that are not finite.
    with torch.no_grad(), watching(model, before=before, after=after), suppress(TorchNanoError):
        call(model, x)
    # Modules whose weights are used without calling them have not been visited above.
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if (not found or found[0][0] == "") and not all_finite([parameter]):
                return path, f"the parameter {own!r} of {describe(path, module)} is not finite"
    if found:
        return found[0]
    if bad_input:
        return "", "the batch's inputs are not finite"
    return "", ""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite."""
    return all(
        bool(_values(tensor).isfinite().all())
        for tensor in tensors
        if tensor.is_floating_point() or tensor.is_complex()
    )


def _values(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor
