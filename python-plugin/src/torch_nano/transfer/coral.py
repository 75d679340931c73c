"""Domain adaptation by deep CORAL: aligns the covariances of features in both domains."""

from __future__ import annotations

import math
from contextlib import ExitStack
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_tensor
from ..errors import FitError, InputError
from ..modules.models import own_module
from ..modules.names import module_named
from ..modules.outputs import first_tensor, not_called
from ..training.data import TrainingData, UnlabelledData, inputs_of
from ..training.fit import fit
from ..training.history import History
from ..training.objective import ExtendedLoss, Loss


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """Distance of the covariances of two sets of features: ||C_source - C_target||^2 / (4 D^2), a scalar.

    Formula: Sun and Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", equations 1
    to 3.

    Args:
        source: features [N, D], N >= 2.
        target: features [M, D], M >= 2.

    Raises:
        InputError: other shapes.

    >>> coral_loss(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]]))
    tensor(9.)
    """
    check_tensor("source", source, error=InputError)
    check_tensor("target", target, error=InputError)
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise InputError(
            f"features of shapes {list(source.shape)} and {list(target.shape)}; expected [N, D] and [M, D]"
        )
    if min(len(source), len(target)) < 2:
        raise InputError(f"{len(source)} and {len(target)} samples; a covariance needs at least 2 of each")
    difference = _covariance(source) - _covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


def coral_alignment(
    model: nn.Module,
    source: TrainingData,
    target: UnlabelledData,
    val: TrainingData | None = None,
    *,
    layer: str,
    epochs: int,
    weight: float = 1.0,
    loss: Loss | None = None,
    batch_size: int = 64,
    **fit_options: Any,
) -> History:
    """Trains on labelled data while aligning a layer's outputs with those for unlabelled target data.

    Minimizes `loss + weight * coral_loss` (deep CORAL). Every batch of the source goes through the model
    together with as many random samples of the target, so batch norms see both. Trains the unfrozen
    parameters; a last batch of a single sample has no covariance and counts for the loss alone.

    Args:
        source: labelled data, as in :func:`~torch_nano.fit`.
        target: inputs of the target domain, a tensor [M, ...] or data as for `fit`, whose labels are ignored.
            They are held in memory.
        val: labelled data whose loss, without alignment, is computed after every epoch.
        layer: name of the module whose outputs are aligned, [N, D] or flattened to it: the logits, or the
            features before the head; "" is the model itself.
        weight: of the alignment. The paper chooses it so that both terms are of similar size in the end.
        loss: as in :func:`~torch_nano.fit`.
        batch_size: of tensors and datasets.
        fit_options: of :func:`~torch_nano.fit`.

    Returns:
        The history; its loss includes the alignment, its accuracy is that on the source.

    Raises:
        ModuleNameError: there is no such layer, or the model does not call it.
        InputError: source and target have different shapes, or the target fewer than 2 samples.
        FitError: the weight is negative.

    Also those of :func:`~torch_nano.fit`.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> history = coral_alignment(model, (x, y), 2 * x + 1, layer="1", epochs=2, progress=False)
    >>> len(history)
    2
    """
    if not isinstance(weight, Real) or not (weight >= 0 and math.isfinite(weight)):
        raise FitError(f"weight={weight!r}; expected a number that is not negative")
    batches = list(inputs_of(target, batch_size))
    if sum(map(len, batches)) < 2:
        raise InputError(f"the target has {sum(map(len, batches))} samples; a covariance needs at least 2")
    inputs = torch.cat(batches)
    own, module = own_module(model), module_named(model, layer)
    aligned = _Aligned(own, inputs, layer)

    def extend(task: Tensor, output: Any) -> Tensor:
        return task + weight * aligned.loss() if aligned.has_both() else task

    with ExitStack() as hooks:
        hooks.enter_context(own.register_forward_pre_hook(aligned.add_target))
        hooks.enter_context(module.register_forward_hook(aligned.record))
        hooks.enter_context(own.register_forward_hook(aligned.drop_target))
        return fit(
            model,
            source,
            val,
            epochs=epochs,
            loss=ExtendedLoss(loss, extend, f"coral_alignment({layer!r}, {weight}, {loss!r})"),
            batch_size=batch_size,
            **fit_options,
        )


class _Aligned:
    """A model whose batches, in train mode, get samples of the target appended."""

    def __init__(self, model: nn.Module, target: Tensor, layer: str) -> None:
        self._model = model
        self._target = target
        self._layer = layer
        self._features: Tensor | None = None

    def add_target(self, model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor] | None:
        if not model.training:
            return None
        self._features = None
        (x,) = arguments
        if not isinstance(x, Tensor) or x.shape[1:] != self._target.shape[1:]:
            given = list(x.shape[1:]) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"samples of the source are {given}, of the target {list(self._target.shape[1:])}; expected "
                "tensors of the same shape"
            )
        drawn = torch.randperm(len(self._target))[: len(x)]
        if len(drawn) < len(x):
            drawn = torch.randint(len(self._target), (len(x),))
        return (torch.cat([x, self._target[drawn.to(self._target.device)].to(x)]),)

    def record(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._features = (
            first_tensor(output, self._layer).flatten(1).clone() if self._model.training else None
        )

    def drop_target(self, model: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        if not model.training:
            return None
        if self._features is None:
            raise not_called(model, self._layer)
        outputs = first_tensor(output, "the model")
        return outputs[: len(outputs) // 2]

    def has_both(self) -> bool:
        """Whether the last forward was in train mode, with at least two samples of each domain."""
        return self._features is not None and len(self._features) >= 4

    def loss(self) -> Tensor:
        """The coral loss of the last forward."""
        assert self._features is not None
        source, target = self._features.chunk(2)
        return coral_loss(source, target)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)
