"""The training loop; strategies of transfer learning are built on it in ``transfer/``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..arguments import items, path_of, whole_number
from ..errors import FitError
from ..modules.backup import Backup
from ..modules.freeze import is_frozen
from ..modules.models import check_numbers, own_module
from . import random_state
from .checkpoint import Checkpoint, TrainingState, arguments_of
from .checks import Checked, check_data
from .data import TrainingData, batches_of
from .early_stopping import EarlyStopping, StopTraining
from .epoch import EpochRunner
from .history import EpochRecord, History
from .objective import Loss
from .optimizers import (
    LEARNING_RATE,
    Scheduler,
    check_groups,
    check_optimizer,
    check_trainable,
    learning_rates_of,
    make_optimizer,
    make_scheduler,
)
from .progress import TrainingProgress

#: Called after every epoch with its number, from 0, and the history so far.
Callback: TypeAlias = Callable[[int, History], None]


def fit(
    model: nn.Module,
    train: TrainingData,
    val: TrainingData | None = None,
    *,
    epochs: int,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    scheduler: Scheduler | None = None,
    callbacks: Sequence[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    learning_rate: float | None = None,
    learning_rates: Mapping[str, float] | None = None,
    batch_size: int = 64,
    seed: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> History:
    """Trains the unfrozen parameters of a model, in place.

    All data are read once before the first epoch, to check them. A failed check leaves the model and all
    random number generators unchanged.

    Args:
        model: any nn.Module from a batch of inputs to a batch of outputs. It may be wrapped (torch.compile,
            DataParallel and the like); all names are those of the module inside.
        train: a DataLoader or another iterable of batches (x, y), a Dataset of samples (x, y), or a tuple of
            two tensors (x, y). Datasets and tensors are shuffled in every epoch.
        val: likewise, not shuffled; its loss and accuracy are taken after every epoch, in evaluation mode.
        epochs: number of epochs in all, those of a checkpoint included.
        optimizer: over parameters of this model; None: AdamW with `learning_rate` and `learning_rates`.
        loss: from output and targets to a scalar, the batch's mean; None: cross entropy for integer targets,
            mean squared error for floats.
        scheduler: an LRScheduler of the optimizer, or a callable that makes one of it; stepped after every
            epoch. ReduceLROnPlateau gets what `early_stopping` monitors, or else val_loss, or else loss.
        callbacks: each is called as `callback(epoch, history)` after every epoch, the last one included.
            Its changes (freezing, learning rates, parameter groups) apply from the next epoch on. It ends the
            training by raising :class:`StopTraining`.
        early_stopping: when to end the training before its last epoch, and whether to restore the best.
        learning_rate: of the AdamW; 0.001 if none is given.
        learning_rates: glob over names of parameters or modules -> learning rate, for parts of the model; the
            first match wins.
        batch_size: of datasets and tensors; a loader has its own.
        seed: makes everything that draws from torch, numpy and random repeatable, as shuffling and dropout;
            the caller's random state does not change. A loader with a generator of its own keeps it.
        checkpoint: a file that is written after every epoch. If it exists, the training resumes from it: on
            the CPU the weights become, bit for bit, those of a training that was not interrupted. It includes
            what is frozen, but not the state of callbacks, nor the random state of a loader's persistent
            workers. `epochs` may be larger than at first.
        device: where to train; the model stays there. None: where the model is.
        progress: show a progress bar and a line for every epoch.

    Raises:
        InputError: data without batches, labels that are not classes, or data, model and loss that do not fit
            each other; the message names the module.
        FitError: an argument is wrong, or contradicts another.
        FreezeError: nothing is left to train, or model and optimizer contradict each other.
        ModuleNameError: a glob of `learning_rates` matches nothing.
        TrainingDivergedError: a loss, gradient or weight is NaN or infinite; names batch, module and learning
            rates.
        CheckpointError, FileFormatError: the checkpoint is of another training, or damaged.

    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> history = fit(model, (x, y), epochs=20, learning_rate=0.02, seed=0, progress=False)
    >>> len(history), history[-1].accuracy > 0.95
    (20, True)
    """
    called, model = model, own_module(model)
    check_numbers(model)
    epochs = whole_number("epochs", epochs, least=1, error=FitError)
    batch_size = whole_number("batch_size", batch_size, least=1, error=FitError)
    seed = None if seed is None else whole_number("seed", seed, most=2**63 - 1, error=FitError)
    checkpoint_file = None if checkpoint is None else path_of("checkpoint", checkpoint)
    _check_kinds(optimizer, loss, early_stopping, callbacks)
    train_batches = batches_of(train, batch_size=batch_size, shuffle=True, name="train")
    val_batches = None if val is None else batches_of(val, batch_size=batch_size, shuffle=False, name="val")
    generators = [
        generator for data in (train_batches, val_batches) for generator in random_state.generators_of(data)
    ]
    check_trainable(model)
    if optimizer is None:
        rate = LEARNING_RATE if learning_rate is None else learning_rate
        optimizer = make_optimizer(model, learning_rate=rate, learning_rates=learning_rates)
        check_groups(model, learning_rates or {})
    elif learning_rate is not None or learning_rates is not None:
        raise FitError(
            "learning_rate and learning_rates are for the optimizer that fit makes, but one was given too; "
            "set the rates in its parameter groups"
        )
    check_optimizer(model, optimizer)
    with _modes_kept(model), TrainingProgress(epochs=epochs, shown=progress) as shown:
        with _moved(model, device) as place:
            with random_state.unchanged(place, generators):
                checked = _check(model, loss, train_batches, val_batches, place)
            shown.checked(checked.train_batches, checked.val_batches)
            history = _new_history(early_stopping, checked, validated=val_batches is not None)
            arguments = arguments_of(model, optimizer) | {
                "scheduler": _name(scheduler),
                "loss": _name(loss),
                "early_stopping": repr(early_stopping),
                "batch_size": batch_size,
                "seed": seed,
                "number of batches": [checked.train_batches, checked.val_batches],
            }
            file = None if checkpoint_file is None else Checkpoint(checkpoint_file, arguments, epochs)
            state = TrainingState(
                model=model,
                optimizer=optimizer,
                scheduler=make_scheduler(scheduler, optimizer, history.monitor),
                history=history,
                best=None,
                device=place,
                generators=generators,
            )
        with random_state.seeded(seed, place):
            if file is not None:
                file.resume(state)
            runner = EpochRunner(called, checked.objective, optimizer, place)
            while len(state.history) < epochs and not state.history.stopped:
                _run_epoch(runner, state, train_batches, val_batches, early_stopping, callbacks, shown)
                if file is not None:
                    file.write(state)
        if state.best is not None:
            model.load_state_dict(state.best)
    return state.history


def _run_epoch(
    runner: EpochRunner,
    state: TrainingState,
    train: Iterable[Any],
    val: Iterable[Any] | None,
    early_stopping: EarlyStopping | None,
    callbacks: Sequence[Callback],
    shown: TrainingProgress,
) -> None:
    """One epoch with validation, scheduler, callbacks and checkpoint."""
    history, epoch = state.history, len(state.history)
    # A callback may have frozen or unfrozen something.
    check_trainable(state.model)
    check_optimizer(state.model, state.optimizer)
    rates = learning_rates_of(state.optimizer)
    shown.start_epoch(epoch)
    started = time.perf_counter()
    trained = runner.train(train, epoch, rates, shown.trained)
    validated = None if val is None else runner.validate(val, epoch, rates, shown.validated)
    history.append(
        EpochRecord(
            epoch=epoch,
            loss=trained.loss,
            accuracy=trained.accuracy,
            val_loss=None if validated is None else validated.loss,
            val_accuracy=None if validated is None else validated.accuracy,
            learning_rates=rates,
            seconds=time.perf_counter() - started,
        )
    )
    if early_stopping is not None:
        history.stopped = early_stopping.reason_to_stop(history)
        if early_stopping.restore_best and history.best_epoch == epoch:
            state.best = copy.deepcopy(state.model.state_dict())
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(history[history.monitor][-1])
    elif state.scheduler is not None:
        state.scheduler.step()
    for callback in callbacks:
        try:
            callback(epoch, history)
        except StopTraining as reason:
            history.stopped = history.stopped or str(reason) or "a callback stopped the training"
    shown.end_epoch(history)


def _check_kinds(
    optimizer: Optimizer | None,
    loss: Loss | None,
    early_stopping: EarlyStopping | None,
    callbacks: Sequence[Callback],
) -> None:
    """Raises a FitError for arguments of another type than expected."""
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise FitError(
            f"optimizer is {optimizer!r}; expected an instance, as torch.optim.SGD(model.parameters(), 0.1)"
        )
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        raise FitError(
            f"loss is {loss!r}; expected a callable of output and target, as nn.CrossEntropyLoss()"
        )
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise FitError(f"early_stopping is {early_stopping!r}; expected an EarlyStopping")
    for callback in items("callbacks", callbacks, "a list of callables of epoch and history", error=FitError):
        if not callable(callback):
            raise FitError(f"callbacks has {callback!r}; expected callables of epoch and history")


def _check(
    model: nn.Module,
    loss: Loss | None,
    train: Iterable[Any],
    val: Iterable[Any] | None,
    device: torch.device,
) -> Checked:
    """Checks data and model, without changing the model's buffers."""
    backup = Backup(model)
    try:
        return check_data(model, loss, train, val, device)
    finally:
        backup.restore()


def _new_history(early_stopping: EarlyStopping | None, checked: Checked, *, validated: bool) -> History:
    """An empty history that monitors what early stopping does."""
    monitor = early_stopping.monitor if early_stopping else "val_loss" if validated else "loss"
    if monitor.startswith("val_") and not validated:
        raise FitError(
            f"early_stopping monitors {monitor!r}, but there are no validation data; give val=..., or "
            f"monitor={monitor.removeprefix('val_')!r}"
        )
    if monitor.endswith("accuracy") and not checked.objective.counts_right:
        raise FitError(
            f"early_stopping monitors {monitor!r}, but accuracy is counted for integer class labels only; "
            f"give monitor={monitor.replace('accuracy', 'loss')!r}"
        )
    return History(monitor=monitor, min_delta=early_stopping.min_delta if early_stopping else 0.0)


def _name(value: object) -> str:
    """The name of a function, or of an object's class."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Restores every module's mode at the end; modules unfrozen meanwhile get the model's mode."""
    modes = [(module, module.training, is_frozen(module)) for module in model.modules()]
    training = model.training
    try:
        yield
    finally:
        for module, mode, was_frozen in modes:
            module.training = training if was_frozen and not is_frozen(module) else mode


def move(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Moves a model to a device (None: not at all); returns where it is then.

    Raises:
        FitError: there is no such device; the model is not moved.
    """
    origin = next(model.parameters()).device
    if device is None:
        return origin
    try:
        return next(model.to(device).parameters()).device
    except (RuntimeError, AssertionError) as error:
        model.to(origin)
        raise FitError(f"device={str(device)!r}; the model cannot go there: {error}") from error


@contextmanager
def _moved(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Moves the model to the device, and back if the code inside fails."""
    origin = next(model.parameters()).device
    try:
        yield move(model, device)
    except BaseException:
        model.to(origin)
        raise
