"""The file with all that a training needs to go on exactly where it was."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointError, FileFormatError
from ..files.writing import write_file
from . import random_state
from .freeze import frozen, set_frozen
from .history import History

_FORMAT = "torch-nano training 1"


@dataclass
class TrainingState:
    """All that changes while a model is trained."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    history: History
    #: The model's state after its best epoch, if it is to be restored.
    best: dict[str, Any] | None
    device: torch.device
    #: The loaders' own generators.
    generators: Sequence[Generator]


class Checkpoint:
    """A file that is written as a whole after every epoch.

    Args:
        path: of the file; its folder must exist.
        arguments: what two trainings must have in common so that one may go on where the other stopped.
        epochs: of the whole training, which may be more than those of the file.

    Raises:
        CheckpointError: the folder does not exist, or the file is of another training.
        FileFormatError: the file is not a checkpoint, or damaged.
    """

    def __init__(self, path: Path, arguments: dict[str, Any], epochs: int) -> None:
        if not path.parent.is_dir() or path.is_dir():
            raise CheckpointError(f"checkpoint={str(path)!r}; expected a file in a folder that exists")
        self._path = path
        self._arguments = arguments
        self._content = self._read() if path.exists() else None
        done = len(self._content["history"]["epochs"]) if self._content else 0
        if done > epochs:
            raise CheckpointError(
                f"{path} has {done} epochs already, but epochs={epochs}; give at least {done}"
            )

    def _read(self) -> dict[str, Any]:
        """The content of the file, once it is known to be of such a training."""
        file = io.BytesIO(self._path.read_bytes())
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            format_name, arguments = content["format"], content["arguments"]
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            OSError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise FileFormatError(
                f"{self._path} is not a checkpoint of fit, or is damaged; delete it to start anew ({error})"
            ) from error
        if format_name != _FORMAT:
            raise FileFormatError(f"{self._path} is of the format {format_name!r}; expected {_FORMAT!r}")
        for name, expected in self._arguments.items():
            if arguments.get(name) != expected:
                raise CheckpointError(
                    f"{self._path} is of a training with another {name}: "
                    f"{_difference(arguments.get(name), expected)}; give what was given then, or delete the "
                    "file to start anew"
                )
        return dict(content)

    def resume(self, state: TrainingState) -> None:
        """Makes the state what it was when the file was written; no effect without a file."""
        if self._content is None:
            return
        content, self._content = self._content, None
        state.model.load_state_dict(content["model"])
        set_frozen(state.model, content["frozen"], content["trainable"])
        try:
            state.optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise CheckpointError(f"{self._path} does not fit the optimizer: {error}") from error
        if state.scheduler is not None:
            state.scheduler.load_state_dict(content["scheduler"])
        state.history = History.from_dict(content["history"])
        state.best = content["best"]
        random_state.restore(content["random"], state.device, state.generators)

    def write(self, state: TrainingState) -> None:
        """Writes the file anew.

        Raises:
            CheckpointError: the state of the optimizer or the scheduler holds more than numbers and tensors.
        """
        content = {
            "format": _FORMAT,
            "arguments": self._arguments,
            "model": state.model.state_dict(),
            "frozen": frozen(state.model),
            "trainable": [
                name for name, parameter in state.model.named_parameters() if parameter.requires_grad
            ],
            "optimizer": state.optimizer.state_dict(),
            "scheduler": None if state.scheduler is None else state.scheduler.state_dict(),
            "history": state.history.to_dict(),
            "best": state.best,
            "random": random_state.capture(state.device, state.generators),
        }
        buffer = io.BytesIO()
        try:
            torch.save(content, buffer)
            if len(state.history) == 1:
                # A file that cannot be read again is noticed when it is needed: try it once.
                torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except (pickle.PicklingError, pickle.UnpicklingError, AttributeError, TypeError) as error:
            raise CheckpointError(
                "the state_dict of the model, the optimizer or the scheduler holds more than numbers and "
                f"tensors, which a checkpoint cannot bring back; fit without checkpoint= ({error})"
            ) from error
        write_file(self._path, buffer.getvalue())


def arguments_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """What a checkpoint holds the model and the optimizer to, as plain values."""
    plain = (int, float, str, tuple, bool)
    return {
        "model": {
            name: f"{list(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else _kind(value)
            for name, value in model.state_dict().items()
        },
        "frozen modules": frozen(model),
        "optimizer": _kind(optimizer),
        "optimizer's groups": [
            {name: value for name, value in group.items() if isinstance(value, plain)}
            # A scheduler has changed the rate if the same optimizer is given once more.
            | {"parameters": len(group["params"]), "lr": float(group.get("initial_lr", group["lr"]))}
            for group in optimizer.param_groups
        ],
    }


def _kind(value: object) -> str:
    return type(value).__name__


def _difference(given: Any, expected: Any) -> str:
    """Where two values differ, for a message."""
    if isinstance(given, dict) and isinstance(expected, dict):
        for name in [*expected, *given]:
            if given.get(name) != expected.get(name):
                return (
                    f"{name}: {given.get(name, 'nothing')} in the file, {expected.get(name, 'nothing')} now"
                )
    return f"{given!r} in the file, {expected!r} now"
