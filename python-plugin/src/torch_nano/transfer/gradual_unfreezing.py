"""Gradual unfreezing: first the head learns, then layer by layer the model before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..arguments import mapping, whole_number
from ..errors import FitError
from ..modules.freeze import training_only, unfreeze
from ..modules.models import check_changeable, own_module
from ..modules.names import matching_modules, matching_parameters
from ..training.data import TrainingData
from ..training.fit import Callback, fit
from ..training.history import History
from ..training.optimizers import LEARNING_RATE, make_optimizer, rates_of

#: First epoch -> modules that learn from that epoch on.
Schedule = Mapping[int, Sequence[str | nn.Module]]


def gradual_unfreezing(
    model: nn.Module,
    train: TrainingData,
    val: TrainingData | None = None,
    *,
    schedule: Schedule,
    epochs: int,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    learning_rates: Mapping[str, float] | None = None,
    callbacks: Sequence[Callback] = (),
    **fit_options: Any,
) -> History:
    """Freezes all but the schedule's modules of epoch 0, and unfreezes more at its other epochs.

    It is one training: optimizer state, learning rates, scheduler, early stopping and checkpoint span all
    phases. Frozen parameters are in the optimizer from the start, but an optimizer skips parameters without a
    gradient: no weight decay, no momentum, and Adam's step count starts when they are unfrozen.

    Args:
        model: any nn.Module. Modules that the schedule never names stay frozen.
        train: as in :func:`~torch_nano.fit`.
        val: likewise.
        schedule: epoch, from 0 -> names or globs of modules, or modules, that are trained from it on; "*" is
            everything that is still frozen.
        epochs: number of epochs in all.
        optimizer: over all parameters that the schedule ever unfreezes; None: AdamW.
        learning_rate: of the AdamW; 0.001 if none is given.
        learning_rates: glob over names of parameters or modules -> learning rate, for the AdamW.
        callbacks: as in :func:`~torch_nano.fit`; they run before the next phase's modules are unfrozen.
        fit_options: of :func:`~torch_nano.fit`.

    Returns:
        The history; its learning rates are those of the groups with trainable parameters in that epoch.

    Raises:
        FitError: the schedule has no epoch 0, or one after the last; a learning rate is for modules that it
            never unfreezes; the optimizer lacks parameters that it unfreezes.
        ModuleNameError: a pattern matches nothing.

    Also those of :func:`~torch_nano.fit`. After an error the same modules are frozen as before.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> rates = {"2": 1e-3, "0": 1e-4}
    >>> schedule = {0: ["2"], 2: ["0"]}
    >>> history = gradual_unfreezing(
    ...     model, (x, y), schedule=schedule, epochs=3, learning_rates=rates, progress=False
    ... )
    >>> [list(record.learning_rates) for record in history]
    [['2'], ['2'], ['2', '0']]
    """
    own = own_module(model)
    check_changeable(own)
    parts = _parts(own, schedule, epochs)
    trained = {parameter for modules in parts.values() for part in modules for parameter in part.parameters()}
    if optimizer is None:
        for glob in rates_of(learning_rates):
            if trained.isdisjoint(matching_parameters(own, glob).values()):
                raise FitError(
                    f"learning_rates: the schedule unfreezes nothing that {glob!r} matches, so its rate has "
                    f"no effect; add it to the schedule, or leave {glob!r} out"
                )
        rate = LEARNING_RATE if learning_rate is None else learning_rate
        optimizer = make_optimizer(own, learning_rate=rate, learning_rates=learning_rates)
        learning_rate = learning_rates = None
    else:
        _check_optimizer(own, optimizer, trained)

    def unfreeze_next(epoch: int, history: History) -> None:
        if epoch + 1 in parts:
            unfreeze(own, *parts[epoch + 1])

    with training_only(own, *parts[0]):
        return fit(
            model,
            train,
            val,
            epochs=epochs,
            optimizer=optimizer,
            learning_rate=learning_rate,
            learning_rates=learning_rates,
            callbacks=[*callbacks, unfreeze_next],
            **fit_options,
        )


def _parts(model: nn.Module, schedule: Schedule, epochs: int) -> dict[int, list[nn.Module]]:
    """The modules of each phase; checks the schedule."""
    epochs = whole_number("epochs", epochs, least=1, error=FitError)
    expected = 'what is trained from which epoch on: {0: ["head"], 3: ["layer4"]}'
    schedule = mapping("schedule", schedule, expected, error=FitError)
    if 0 not in schedule:
        raise FitError(
            f"schedule={schedule!r} has no epoch 0; expected what is trained from the start there: "
            '{0: ["head"], 3: ["layer4"]}'
        )
    parts = {}
    for epoch, patterns in schedule.items():
        if not isinstance(epoch, int) or not 0 <= epoch < epochs:
            raise FitError(
                f"the schedule has the epoch {epoch!r}; expected whole numbers from 0 to {epochs - 1}"
            )
        if isinstance(patterns, str | nn.Module) or not patterns:
            raise FitError(
                f"the schedule has {patterns!r} at epoch {epoch}; expected a list of names, globs or modules"
            )
        parts[epoch] = matching_modules(model, patterns)
    return parts


def _check_optimizer(model: nn.Module, optimizer: Optimizer, trained: set[nn.Parameter]) -> None:
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in model.named_parameters() if parameter in trained - held]
    if missing:
        raise FitError(
            f"the optimizer has not got {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + ", which the schedule unfreezes; make it from model.parameters(): what is frozen has no "
            "gradient and is left out"
        )
