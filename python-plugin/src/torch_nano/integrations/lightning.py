"""Quantization-aware training with Lightning (the package `lightning`)."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from ..errors import InputError
from ..qat.qat_module import QatModule
from ..qat.stages import fold_batch_norm, freeze_ranges

__all__ = ["QatSchedule"]


class QatSchedule(Callback):
    """Folds the batch norms and freezes the ranges of every :class:`torch_nano.qat.QatModule` of a model.

    Each happens at the start of an epoch, counted from 0; a run that is resumed after that epoch does it at
    once.

    Args:
        fold_batch_norm_at: the epoch from which on batch norms are folded; None: never.
        freeze_ranges_at: the epoch from which on ranges are frozen; None: never.

    Raises:
        InputError: an epoch is negative; when training starts: the model has no QatModule.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(
    ...     callbacks=[QatSchedule(fold_batch_norm_at=2, freeze_ranges_at=3)],
    ...     accelerator="cpu",
    ...     barebones=True,
    ... )
    """

    def __init__(self, *, fold_batch_norm_at: int | None = None, freeze_ranges_at: int | None = None) -> None:
        for epoch in (fold_batch_norm_at, freeze_ranges_at):
            if epoch is not None and epoch < 0:
                raise InputError(f"epoch {epoch}: expected a number from 0 on, or None")
        self.fold_batch_norm_at = fold_batch_norm_at
        self.freeze_ranges_at = freeze_ranges_at

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises for a model without a QatModule."""
        if not _parts(pl_module):
            raise InputError(
                f"{type(pl_module).__name__} has no QatModule: keep what prepare_qat returns as its attribute"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Folds batch norms and freezes ranges if it is their epoch."""
        for qat in _parts(pl_module):
            if self.fold_batch_norm_at is not None and trainer.current_epoch >= self.fold_batch_norm_at:
                fold_batch_norm(qat)
            if self.freeze_ranges_at is not None and trainer.current_epoch >= self.freeze_ranges_at:
                freeze_ranges(qat)


def _parts(model: LightningModule) -> list[QatModule]:
    return [module for module in model.modules() if isinstance(module, QatModule)]
