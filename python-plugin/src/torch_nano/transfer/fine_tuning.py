"""Fine-tuning: parts of a model go on learning, each at its own learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import FitError, InputError
from ..modules.freeze import training_only
from ..training.data import TrainingData
from ..training.early_stopping import EarlyStopping
from ..training.fit import fit
from ..training.history import History
from ..training.objective import Loss


def fine_tuning(
    model: nn.Module,
    train: TrainingData,
    val: TrainingData | None = None,
    *,
    learning_rates: Mapping[str, float],
    epochs: int,
    **fit_options: Any,
) -> History:
    """Trains the named parts, each at its learning rate, and freezes everything else.

    Args:
        model: any nn.Module. All but the named parts stays frozen.
        train: as in :func:`~torch_nano.fit`.
        val: likewise.
        learning_rates: glob over `model.named_modules()` -> learning rate; the first match wins, so "*" at
            the end is all the rest. Use small rates for pre-trained layers, larger ones for new layers.
        fit_options: of :func:`~torch_nano.fit`.

    Returns:
        The history; each glob is a group of its learning rates.

    Raises:
        ModuleNameError: a glob matches no module.
        FitError: there are no learning rates, or a glob comes after another that matches all it matches.

    Also those of :func:`~torch_nano.fit`. After an error the same modules are frozen as before.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> rates = {"2": 1e-4, "4": 1e-3}
    >>> history = fine_tuning(model, (x, y), learning_rates=rates, epochs=2, progress=False)
    >>> history[-1].learning_rates, model[0].weight.requires_grad
    ({'2': 0.0001, '4': 0.001}, False)
    """
    if not learning_rates:
        raise FitError(
            "learning_rates is empty, so all would be frozen; expected {name or glob of modules: rate}"
        )
    with training_only(model, *learning_rates):
        return fit(model, train, val, learning_rates=learning_rates, epochs=epochs, **fit_options)


def fine_tune(
    model: nn.Module,
    optimizer: Optimizer,
    train_data: Tensor | Sequence[Tensor],
    train_labels: Tensor | Sequence[Tensor],
    val_data: Tensor | Sequence[Tensor] | None = None,
    val_labels: Tensor | Sequence[Tensor] | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    loss_fn: Loss | None = None,
    callbacks: Sequence[Callable[[int, dict[str, list[float]]], None]] | None = None,
    early_stopping: bool = False,
    patience: int = 3,
) -> dict[str, list[float]]:
    """Trains the unfrozen parameters of a model with an optimizer of yours: :func:`~torch_nano.fit` for data
    in lists.

    Args:
        model: a :class:`~torch_nano.transfer.TransferModel` or any nn.Module.
        train_data: one tensor per sample without a batch dimension, or all as one tensor [N, ...].
        train_labels: one tensor per sample, or all as one; class labels are [N] or [N, 1] integers.
        val_data: like `train_data`.
        val_labels: like `train_labels`.
        loss_fn: from output and targets to the batch's mean; None: cross entropy for integer labels, mean
            squared error for floats.
        callbacks: each is called as `callback(epoch, history)` after every epoch, from 0, with the columns
            so far; `raise tn.training.StopTraining("why")` ends the training.
        early_stopping: end the training when the validation loss (the training loss without validation data)
            has not become smaller for `patience` epochs. The weights are then those of the best epoch.

    Returns:
        "train_loss", "val_loss", "train_accuracy" and "val_accuracy", one number per epoch; empty without
        validation data, or without class labels.

    Raises:
        InputError: samples of different shapes, or validation data without labels.

    Also those of :func:`~torch_nano.fit`.

    >>> model = nn.Linear(4, 2)
    >>> samples = [torch.randn(4) for _ in range(40)]
    >>> labels = [(sample[:1] > 0).long() for sample in samples]
    >>> history = fine_tune(model, torch.optim.Adam(model.parameters()), samples, labels, epochs=3)
    >>> {name: len(values) for name, values in history.items()}
    {'train_loss': 3, 'val_loss': 0, 'train_accuracy': 3, 'val_accuracy': 0}
    """
    if (val_data is None) != (val_labels is None):
        missing = "val_data" if val_data is None else "val_labels"
        raise InputError(f"{missing} is missing; expected both val_data and val_labels, or neither")
    val = None
    if val_data is not None and val_labels is not None:
        val = _stacked(val_data, "val_data"), _labels(val_labels, "val_labels")
    monitor = "loss" if val is None else "val_loss"

    def with_columns(
        callback: Callable[[int, dict[str, list[float]]], None],
    ) -> Callable[[int, History], None]:
        return lambda epoch, history: callback(epoch, _columns(history))

    history = fit(
        model,
        (_stacked(train_data, "train_data"), _labels(train_labels, "train_labels")),
        val,
        epochs=epochs,
        optimizer=optimizer,
        loss=loss_fn,
        callbacks=[with_columns(callback) for callback in callbacks or ()],
        early_stopping=EarlyStopping(monitor, patience=patience) if early_stopping else None,
        batch_size=batch_size,
        progress=False,
    )
    return _columns(history)


def _columns(history: History) -> dict[str, list[float]]:
    names = {
        "train_loss": "loss",
        "val_loss": "val_loss",
        "train_accuracy": "accuracy",
        "val_accuracy": "val_accuracy",
    }
    return {name: [value for value in history[own] if value is not None] for name, own in names.items()}


def _stacked(samples: Tensor | Sequence[Tensor], name: str) -> Tensor:
    if isinstance(samples, Tensor):
        return samples
    tensors = [torch.as_tensor(sample) for sample in samples]
    if not tensors:
        raise InputError(f"{name} is empty; expected at least one sample")
    for index, tensor in enumerate(tensors):
        if (tensor.shape, tensor.dtype) != (tensors[0].shape, tensors[0].dtype):
            raise InputError(
                f"{name}[{index}] has the shape {list(tensor.shape)} and {tensor.dtype}, {name}[0] "
                f"{list(tensors[0].shape)} and {tensors[0].dtype}; expected the same for all samples"
            )
    return torch.stack(tensors)


def _labels(labels: Tensor | Sequence[Tensor], name: str) -> Tensor:
    stacked = _stacked(labels, name)
    one_each = stacked.ndim == 2 and stacked.shape[1] == 1
    return stacked.squeeze(1) if one_each and not stacked.is_floating_point() else stacked
