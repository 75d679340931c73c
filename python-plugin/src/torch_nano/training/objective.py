"""The objective of a training: its loss, and checks of the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError

#: From a model's output and the targets of a batch to a scalar, the mean over the samples.
Loss: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss, with the properties that follow from it and from the first training batch."""

    loss: Loss
    #: Labels must be below this; None if the targets are not classes of a cross entropy.
    classes: int | None
    #: The label that the loss ignores, if any.
    ignored: int | None
    #: Whether outputs and targets allow to count an accuracy.
    counts_right: bool

    def __call__(self, output: Any, target: Any) -> Tensor:
        """The loss of a batch."""
        return self.loss(output, target.long() if self.classes is not None else target)

    def right(self, output: Tensor, target: Any) -> tuple[int, int]:
        """The numbers of right labels and of all labels in a batch."""
        labels = _labels(target)
        assert labels is not None
        counted = (
            labels != self.ignored if self.ignored is not None else torch.ones_like(labels, dtype=torch.bool)
        )
        return int(((output.argmax(1) == labels) & counted).sum()), int(counted.sum())

    def check_labels(self, target: Any, where: str) -> None:
        """Raises an InputError if a label is not one of the classes."""
        if self.classes is None or target.numel() == 0:
            return
        low, high = target.aminmax()
        if low >= 0 and high < self.classes:
            return
        labels = target.long()
        wrong = (labels < 0) | (labels >= self.classes)
        if self.ignored is not None:
            wrong &= labels != self.ignored
        if wrong.any():
            raise InputError(
                f"{where} has the label {int(labels[wrong][0])}; expected 0 to {self.classes - 1}, since "
                f"the model has {self.classes} output{'s' * (self.classes > 1)}"
            )


class ExtendedLoss:
    """A loss with an additional term; the targets are checked as for the loss alone.

    Args:
        loss: the loss; None: the default for the targets.
        extend: maps a batch's loss and the model's output to the value that is minimized.
        name: of both with their parameters; it must equal that in a checkpoint.
    """

    def __init__(self, loss: Loss | None, extend: Callable[[Tensor, Any], Tensor], name: str) -> None:
        self.loss = loss
        self.extend = extend
        self.__qualname__ = name

    def __call__(self, output: Any, target: Any) -> Tensor:
        """The value that is minimized for a batch."""
        return self.extend((self.loss or default_loss(target))(output, target), output)


def default_loss(target: Tensor) -> Loss:
    """The default loss for targets."""
    return functional.mse_loss if target.is_floating_point() else functional.cross_entropy


def objective_of(loss: Loss | None, output: Any, target: Any, where: str) -> Objective:
    """The objective for a first batch.

    Args:
        loss: None: cross entropy for targets of integers, mean squared error for floats.
        output: of the model, for that batch.
        target: of that batch.
        where: for the messages.

    Raises:
        InputError: outputs and targets do not fit each other, or the loss.
    """
    if isinstance(loss, ExtendedLoss):
        return replace(objective_of(loss.loss, output, target, where), loss=loss)
    if loss is None:
        if not isinstance(output, Tensor) or not isinstance(target, Tensor):
            raise InputError(
                f"{where}: the model gives {_kind(output)} for targets {_kind(target)}; expected tensors, "
                "or a loss of your own (loss=...)"
            )
        loss = default_loss(target)
        if target.is_floating_point() and output.shape != target.shape:
            raise InputError(
                f"{where}: the model's output has the shape {tuple(output.shape)}, the float targets "
                f"{tuple(target.shape)}; the mean squared error needs equal shapes. For classes give integer "
                "labels (targets.long()), for one number per sample targets of shape (samples, 1)"
            )
    labels = _labels(target)
    counts_right = (
        isinstance(output, Tensor)
        and labels is not None
        and output.dim() >= 2
        and labels.shape == output.shape[:1] + output.shape[2:]
    )
    if not _is_cross_entropy(loss):
        return Objective(loss, None, None, counts_right)
    if isinstance(target, Tensor) and target.is_floating_point():
        if not isinstance(output, Tensor) or output.shape != target.shape:
            raise InputError(
                f"{where}: float targets of shape {tuple(target.shape)} for cross entropy; expected integer "
                "labels (targets.long()), or the probabilities of all classes in the shape of the output, "
                f"{_kind(output)}"
            )
        return Objective(loss, None, None, False)
    if not counts_right or not isinstance(target, Tensor):
        raise InputError(
            f"{where}: cross entropy of an output {_kind(output)} and labels {_kind(target)}; expected an "
            "output of shape (samples, classes) and labels of shape (samples,): of labels (samples, 1) "
            "take squeeze(1), of one-hot labels argmax(1)"
        )
    ignored = getattr(loss, "ignore_index", -100)
    return Objective(loss, output.shape[1], ignored, counts_right)


def _is_cross_entropy(loss: Loss) -> bool:
    return loss in (functional.cross_entropy, functional.nll_loss) or isinstance(
        loss, (nn.CrossEntropyLoss, nn.NLLLoss)
    )


def _labels(target: Any) -> Tensor | None:
    """The class labels in a batch's targets: the targets themselves, or the first of several."""
    if isinstance(target, (tuple, list)) and target:
        target = target[0]
    return target if isinstance(target, Tensor) and not target.is_floating_point() else None


def _kind(value: Any) -> str:
    """Describes a value, for messages."""
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"of shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"
