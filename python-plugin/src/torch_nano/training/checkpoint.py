"""Checkpoints: files from which a training resumes exactly."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..arguments import shown
from ..errors import CheckpointError, FileFormatError, InputError, TorchNanoError
from ..files import archive
from ..files.reading import fields_of, read_file, refusing
from ..files.writing import write_file
from ..modules.freeze import frozen, set_frozen
from . import random_state
from .history import History
from .optimizers import check_optimizer, check_trainable

_KIND, _VERSION = "training", 2


@dataclass
class TrainingState:
    """All that changes while a model is trained."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    history: History
    #: The model's state after its best epoch, if that will be restored at the end.
    best: dict[str, Any] | None
    device: torch.device
    #: The loaders' own generators.
    generators: Sequence[Generator]


@dataclass
class _Contents:
    """The contents of a checkpoint file."""

    arguments: dict[str, Any]
    model: dict[str, Any]
    frozen: list[str]
    trainable: list[str]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    history: dict[str, Any]
    best: dict[str, Any] | None
    random: dict[str, Any]


class Checkpoint:
    """A checkpoint file, written atomically after every epoch.

    Args:
        path: of the file; its folder must exist.
        arguments: of the training; they must equal those in the file for the training to resume.
        epochs: number of epochs of the whole training; may be larger than in the file.

    Raises:
        CheckpointError: the folder does not exist, or the file is of another training.
        FileFormatError: the file is not a checkpoint, is damaged, or of another version.
    """

    def __init__(self, path: Path, arguments: dict[str, Any], epochs: int) -> None:
        if not path.parent.is_dir() or path.is_dir():
            raise CheckpointError(f"checkpoint={str(path)!r}; expected a file in a folder that exists")
        self._path = path
        self._arguments, self._epochs = arguments, epochs
        self._content = self._read() if path.exists() else None
        done = len(self._history) if self._content else 0
        if done > epochs:
            raise CheckpointError(
                f"{path} has {done} epochs already, but epochs={epochs}; give at least {done}"
            )

    def _read(self) -> _Contents:
        """Reads the file and checks that it is of such a training."""
        try:
            data = archive.unpack(_KIND, _VERSION, read_file(self._path))
            content = fields_of(_Contents, data, "its content")
            self._history = History.from_dict(content.history)
        except (FileFormatError, InputError) as error:
            raise FileFormatError(
                f"{self._path} is not a checkpoint of fit, or is damaged; delete it to start anew ({error})"
            ) from error
        with refusing(FileFormatError, f"{self._path} contradicts itself"):
            self._check_kind(content)
        return content

    def _check_kind(self, content: _Contents) -> None:
        if content.arguments.keys() - self._arguments.keys():
            raise FileFormatError(f"{self._path} contradicts itself: {shown(content.arguments)}")
        for name, expected in self._arguments.items():
            given = content.arguments.get(name)
            if given != expected:
                raise CheckpointError(
                    f"{self._path} is of a training with another {name}: {_difference(given, expected)}. "
                    "Give what was given then, or delete the file to start anew"
                )
        model = self._arguments["model"]
        for name, state in (("model", content.model), ("best epoch's model", content.best)):
            if state is not None and _kinds(state) != model:
                raise FileFormatError(
                    f"{self._path} contradicts itself: its {name} is not of the model that it names "
                    f"({_difference(_kinds(state), model)}); delete it to start anew"
                )

    def resume(self, state: TrainingState) -> None:
        """Restores the state of the file; no effect without a file.

        Raises:
            CheckpointError, FileFormatError: the file does not fit; the state is then unchanged.
        """
        if self._content is None:
            return
        content, self._content = self._content, None
        with _all_or_nothing(state), refusing(FileFormatError, f"{self._path} cannot be taken over"):
            self._check_names(content, state)
            self._take_over(content, state)
            if len(self._history) < self._epochs and not self._history.stopped:
                self._try_step(state)
                self._take_over(content, state)
            state.history, state.best = self._history, content.best

    def _take_over(self, content: _Contents, state: TrainingState) -> None:
        state.model.load_state_dict(content.model)
        set_frozen(state.model, content.frozen, content.trainable)
        try:
            state.optimizer.load_state_dict(copy.deepcopy(content.optimizer))
        except ValueError as error:
            raise CheckpointError(f"{self._path} does not fit the optimizer: {error}") from error
        if state.scheduler is not None and content.scheduler is not None:
            state.scheduler.load_state_dict(copy.deepcopy(content.scheduler))
        random_state.restore(content.random, state.device, state.generators)

    def _try_step(self, state: TrainingState) -> None:
        """Tries a step with gradients of zero: torch loads any optimizer state, and fails only in a step."""
        try:
            check_trainable(state.model)
            check_optimizer(state.model, state.optimizer)
        except TorchNanoError as error:
            raise FileFormatError(f"{self._path} cannot be taken over: {error}") from error
        parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        state.optimizer.step(lambda: 0.0)
        state.optimizer.zero_grad()
        if isinstance(state.scheduler, ReduceLROnPlateau):
            state.scheduler.step(self._history[self._history.monitor][-1])
        elif state.scheduler is not None:
            state.scheduler.step()

    def _check_names(self, content: _Contents, state: TrainingState) -> None:
        monitored = [(one.monitor, one.min_delta) for one in (self._history, state.history)]
        groups = content.optimizer.get("param_groups")
        expected = {} if state.scheduler is None else state.scheduler.state_dict()
        for name, fits in (
            ("optimizer", _names(groups) == _names(state.optimizer.state_dict()["param_groups"])),
            # A scheduler's state may get more keys after some steps.
            ("scheduler", expected.keys() <= (content.scheduler or {}).keys()),
            ("history", monitored[0] == monitored[1]),
        ):
            if not fits:
                raise FileFormatError(f"{self._path} contradicts itself: its {name} is not what it names")
        modules = {name for name, _ in state.model.named_modules()}
        parameters = {name for name, _ in state.model.named_parameters()}
        for kind, names, known in (
            ("frozen modules", content.frozen, modules),
            ("trainable parameters", content.trainable, parameters),
        ):
            if unknown := set(names) - known:
                raise FileFormatError(
                    f"{self._path} contradicts itself: {shown(min(unknown))} is among its {kind}; the model "
                    "has none of that name"
                )

    def write(self, state: TrainingState) -> None:
        """Replaces the file.

        Raises:
            CheckpointError: the state of the optimizer or the scheduler holds more than numbers and tensors.
        """
        content = _Contents(
            arguments=self._arguments,
            model=state.model.state_dict(),
            frozen=frozen(state.model),
            trainable=[name for name, parameter in state.model.named_parameters() if parameter.requires_grad],
            optimizer=state.optimizer.state_dict(),
            scheduler=None if state.scheduler is None else state.scheduler.state_dict(),
            history=state.history.to_dict(),
            best=state.best,
            random=random_state.capture(state.device, state.generators),
        )
        try:
            file = archive.pack(_KIND, _VERSION, vars(content))
        except archive.NotPlainError as error:
            raise CheckpointError(
                "the state_dict of the model, the optimizer or the scheduler holds more than numbers and "
                f"tensors, which a checkpoint cannot bring back; fit without checkpoint= ({error})"
            ) from error
        write_file(self._path, file)


@contextmanager
def _all_or_nothing(state: TrainingState) -> Iterator[None]:
    """Restores everything if the code inside fails."""
    model, optimizer, scheduler = state.model, state.optimizer, state.scheduler
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    scheduled = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
    modules, modes = frozen(model), [(module, module.training) for module in model.modules()]
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    drawn = random_state.capture(state.device, state.generators)
    try:
        yield
    except BaseException:
        model.load_state_dict(before[0])
        set_frozen(model, modules, trainable)
        for module, mode in modes:
            module.training = mode
        optimizer.load_state_dict(before[1])
        if scheduler is not None and scheduled is not None:
            scheduler.load_state_dict(scheduled)
        random_state.restore(drawn, state.device, state.generators)
        raise


def arguments_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The properties of model and optimizer that must equal those in a checkpoint, as plain values."""
    plain = (int, float, str, tuple, bool)
    return {
        "model": _kinds(model.state_dict()),
        "frozen modules": frozen(model),
        "optimizer": _kind(optimizer),
        "optimizer's groups": [
            {name: value for name, value in group.items() if isinstance(value, plain)}
            # The initial rate: a scheduler changes "lr" of an optimizer that is used again.
            | {"parameters": len(group["params"]), "lr": float(group.get("initial_lr", group["lr"]))}
            for group in optimizer.param_groups
        ],
    }


def _names(value: Any) -> Any:
    """The names in nested dicts and lists, each with whether its value is a number."""
    if isinstance(value, dict):
        return {name: _names(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_names(item) for item in value]
    return "number" if type(value) in (int, float) else _kind(value)


def _kinds(state: dict[str, Any]) -> dict[str, str]:
    """The shapes and dtypes of a state_dict."""
    return {
        name: f"{list(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else _kind(value)
        for name, value in state.items()
    }


def _kind(value: object) -> str:
    return type(value).__name__


def _difference(given: Any, expected: Any) -> str:
    """The difference of two values, for a message."""
    if isinstance(given, dict) and isinstance(expected, dict):
        for name in [*expected, *given]:
            if given.get(name) != expected.get(name):
                return (
                    f"{name}: {given.get(name, 'nothing')} in the file, {expected.get(name, 'nothing')} now"
                )
    return f"{given!r} in the file, {expected!r} now"
