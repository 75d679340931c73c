"""Knowledge distillation: a student learns from a teacher's outputs."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import positive_number
from ..errors import FitError, InputError
from ..modules.explain import run
from ..modules.models import check_numbers, own_module
from ..modules.modes import evaluation_mode
from ..training.data import TrainingData
from ..training.fit import fit
from ..training.history import History
from ..training.objective import ExtendedLoss, Loss


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Divergence of a student's classes from a teacher's: the mean over all samples of
    T^2 KL(softmax(teacher / T) || softmax(student / T)), a scalar.

    Formula: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; T^2 makes the
    gradient independent of T for large T.

    Args:
        student: logits [N, classes] or [N, classes, ...].
        teacher: likewise.
        temperature: T; the larger, the more the less likely classes count.

    Raises:
        InputError: the shapes differ, or there are fewer than two classes.

    >>> logits = torch.tensor([[1.0, 2.0, 4.0]])
    >>> distillation_loss(logits, logits).item()
    0.0
    """
    if student.shape != teacher.shape or student.ndim < 2 or student.shape[1] < 2:
        raise InputError(
            f"the student gives {list(student.shape)} and the teacher {list(teacher.shape)}; expected the "
            "same shape [N, classes, ...] with at least 2 classes"
        )
    expected = (teacher / temperature).log_softmax(1)
    given = (student / temperature).log_softmax(1)
    return temperature**2 * (expected.exp() * (expected - given)).sum(1).mean()


def distillation(
    student: nn.Module,
    teacher: nn.Module,
    train: TrainingData,
    val: TrainingData | None = None,
    *,
    epochs: int,
    temperature: float = 4.0,
    weight: float = 0.5,
    loss: Loss | None = None,
    **fit_options: Any,
) -> History:
    """Trains a student on labels and on a teacher's outputs: a smaller model, or the float model's QatModule
    from :func:`~torch_nano.prepare_qat`.

    Minimizes `(1 - weight) * loss + weight * distillation_loss`. Trains the student's unfrozen parameters;
    the teacher runs in evaluation mode and does not change.

    Args:
        student: returns logits [N, classes].
        teacher: returns logits of the same classes for the same inputs; may be on another device.
        train: as in :func:`~torch_nano.fit`.
        val: labelled data whose loss, without the teacher, is computed after every epoch.
        temperature: of both softmaxes, see :func:`distillation_loss`.
        weight: 0: labels only; 1: teacher only.
        loss: as in :func:`~torch_nano.fit`.
        fit_options: of :func:`~torch_nano.fit`.

    Returns:
        The history; its loss includes the teacher's part.

    Raises:
        InputError: student and teacher have different outputs, or share modules.
        FitError: the temperature is not positive, or the weight not from 0 to 1.

    Also those of :func:`~torch_nano.fit`.

    >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> student = nn.Linear(4, 2)
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> history = distillation(student, teacher, (x, y), epochs=2, progress=False)
    >>> len(history)
    2
    """
    temperature = positive_number("temperature", temperature, error=FitError)
    if not isinstance(weight, Real) or not 0 <= weight <= 1:
        raise FitError(f"weight={weight!r}; expected 0 (labels only) to 1 (teacher only)")
    own, teacher = own_module(student, "student"), own_module(teacher, "teacher")
    check_numbers(teacher)
    if not set(student.modules()).isdisjoint(teacher.modules()):
        raise InputError(
            "student and teacher share modules, so the teacher would change with the student; take a "
            "copy.deepcopy of it"
        )
    inputs: list[Any] = []
    teachers_place = next(teacher.parameters(), torch.empty(0)).device

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs[:] = arguments

    def extend(task: Tensor, output: Any) -> Tensor:
        if not own.training:
            return task
        with torch.no_grad():
            expected = run(teacher, inputs[0].to(teachers_place), "the inputs of the teacher").to(output)
        return (1 - weight) * task + weight * distillation_loss(output, expected, temperature)

    with evaluation_mode(teacher), own.register_forward_pre_hook(record):
        return fit(
            student,
            train,
            val,
            epochs=epochs,
            loss=ExtendedLoss(loss, extend, f"distillation({temperature}, {weight}, {loss!r})"),
            **fit_options,
        )
