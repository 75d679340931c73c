"""One pass over the training data, and one over the validation data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import InputError, TorchNanoError, TrainingDivergedError
from ..modules.backup import Backup
from ..modules.explain import explain
from ..modules.inputs import call
from ..modules.models import own_module
from ..modules.modes import set_mode
from ..modules.watching import tensors_in
from .data import samples_in, split_batch, to_device
from .divergence import Place, all_finite, gradient_error, loss_error, weight_error
from .objective import Objective

#: Called with the number of batches done in a pass, and the mean loss so far.
OnBatch = Callable[[int, float], None]


@dataclass
class Means:
    """Mean loss and accuracy over the samples so far."""

    loss_sum: float = 0.0
    samples: int = 0
    right: int = 0
    labels: int = 0

    def add(self, objective: Objective, loss: float, samples: int, output: Any, target: Any) -> None:
        """Adds a batch with its mean loss."""
        self.loss_sum += loss * samples
        self.samples += samples
        if objective.counts_right:
            right, labels = objective.right(output, target)
            self.right += right
            self.labels += labels

    @property
    def loss(self) -> float:
        """Mean loss of the samples so far."""
        return self.loss_sum / self.samples

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the samples so far; None if they have no labels."""
        return self.right / self.labels if self.labels else None


@dataclass
class EpochRunner:
    """Runs the passes of an epoch over training and validation data."""

    #: The model that is called, in its wrapper if it has one.
    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    device: torch.device

    def __post_init__(self) -> None:
        #: The model without its wrapper.
        self.own = own_module(self.model)

    def train(self, data: Iterable[Any], epoch: int, rates: dict[str, float], on_batch: OnBatch) -> Means:
        """One step of the optimizer for every batch.

        Raises:
            TrainingDivergedError: the loss, a gradient or a weight is not finite.
        """
        set_mode(self.own, True)
        # Some optimizers (LBFGS) evaluate a batch several times, with changed weights.
        closure = inspect.signature(self.optimizer.step).parameters.get("closure")
        calls_back = closure is not None and closure.default is inspect.Parameter.empty
        backup = Backup(self.own, with_parameters=calls_back)
        parameters = dict(self.own.named_parameters())
        means = Means()
        place = Place(epoch, 0, "train", rates)
        for place, (x, target, samples) in self._batches(data, epoch, "train", rates):
            backup.save()
            runs: list[tuple[float, Any]] = []
            gradients = partial(self._gradients, x, target, parameters, backup, place, runs)
            with _noted(place):
                if calls_back:
                    self.optimizer.step(gradients)
                else:
                    # Before the step, so that hooks before the step, as for clipping, see the gradients.
                    gradients()
                    self.optimizer.step()
            loss, output = runs[0]
            means.add(self.objective, loss, samples, output, target)
            on_batch(place.batch + 1, means.loss)
        if error := weight_error(parameters, place):
            raise error
        return means

    def _gradients(
        self,
        x: Any,
        target: Any,
        parameters: dict[str, nn.Parameter],
        backup: Backup,
        place: Place,
        runs: list[tuple[float, Any]],
    ) -> float:
        """Computes the gradients, and appends loss and output of the batch to `runs`."""
        self.optimizer.zero_grad()
        output = self._forward(x, backup, place)
        loss = self.objective(output, target)
        value = loss.item()
        if not math.isfinite(value):
            raise loss_error(self.own, x, backup, f"the loss is {value}", place)
        loss.backward()  # type: ignore[no-untyped-call]
        if error := gradient_error(parameters, backup, place):
            raise error
        runs.append((value, output.detach() if isinstance(output, Tensor) else output))
        return value

    @torch.no_grad()
    def validate(self, data: Iterable[Any], epoch: int, rates: dict[str, float], on_batch: OnBatch) -> Means:
        """Loss and accuracy in evaluation mode.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        set_mode(self.own, False)
        backup = Backup(self.own)
        means = Means()
        for place, (x, target, samples) in self._batches(data, epoch, "val", rates):
            with _noted(place):
                output = self._forward(x, backup, place)
                value = float(self.objective(output, target))
            if not math.isfinite(value):
                raise loss_error(self.own, x, backup, f"the loss is {value}", place)
            means.add(self.objective, value, samples, output, target)
            on_batch(place.batch + 1, means.loss)
        return means

    def _forward(self, x: Any, backup: Backup, place: Place) -> Any:
        try:
            return call(self.model, x)
        except TorchNanoError as error:
            # A quantized model raises for inputs that are not finite, before there is a loss.
            if isinstance(error, InputError) and all_finite(tensors_in(x)):
                raise
            raise loss_error(self.own, x, backup, error, place) from error
        except ValueError as error:
            # torch's batch norms; a loader's batches may have other sizes in each epoch.
            if "more than 1 value per channel" not in str(error):
                raise
            reason = explain(self.own, x, error)
            backup.restore()
            raise InputError(f"the model cannot take the batch: {reason}") from error

    def _batches(
        self, data: Iterable[Any], epoch: int, name: str, rates: dict[str, float]
    ) -> Iterator[tuple[Place, tuple[Any, Any, int]]]:
        """The batches on the device, with their numbers of samples."""
        for index, batch in enumerate(data):
            where = f"batch {index} of {name} in epoch {epoch}"
            x, target = split_batch(batch, where)
            samples = samples_in(x, where)
            # Before the device gets them: CUDA's assertion has no useful message and leaves CUDA unusable.
            self.objective.check_labels(target, where)
            yield (
                Place(epoch, index, name, rates),
                (to_device(x, self.device), to_device(target, self.device), samples),
            )


class _noted:
    """Adds the position in the training as a note to errors raised inside."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, TrainingDivergedError):
            error.add_note(
                f"in fit: epoch {self._place.epoch}, batch {self._place.batch} of {self._place.data}"
            )
