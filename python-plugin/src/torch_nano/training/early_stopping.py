"""Early stopping: ends a training before its last epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from ..arguments import whole_number
from ..errors import FitError
from .history import METRICS, History


class StopTraining(Exception):
    """Raised by a callback of :func:`fit`: the training ends after this epoch, with this reason.

    >>> def enough(epoch: int, history: History) -> None:
    ...     if history[-1].loss < 0.1:
    ...         raise StopTraining("the loss is small enough")
    """


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a training whose monitored value has not become better for some epochs.

    Accuracies are better when higher, losses when lower.

    Raises:
        FitError: a field has an invalid value.

    >>> EarlyStopping("val_accuracy", patience=5)
    EarlyStopping(monitor='val_accuracy', patience=5, min_delta=0.0, restore_best=True)
    """

    #: "loss", "accuracy", "val_loss" or "val_accuracy".
    monitor: str = "val_loss"
    #: Epochs without a better value after which the training ends.
    patience: int = 3
    #: An epoch is better only if its value is better by more than this.
    min_delta: float = 0.0
    #: The model ends with the weights of the best epoch, also when all epochs were run.
    restore_best: bool = True

    def __post_init__(self) -> None:
        if self.monitor not in METRICS:
            raise FitError(f"monitor={self.monitor!r}; expected one of {', '.join(map(repr, METRICS))}")
        whole_number("patience", self.patience, least=1, error=FitError)
        real = isinstance(self.min_delta, Real)
        if not real or not (self.min_delta >= 0 and math.isfinite(self.min_delta)):
            raise FitError(f"min_delta={self.min_delta!r}; expected a number that is not negative")

    def reason_to_stop(self, history: History) -> str:
        """The reason to end the training after the last epoch of this history; "" if it goes on.

        >>> from torch_nano.training.history import EpochRecord
        >>> losses = [EpochRecord(i, 0.1, None, loss, None, {}, 1) for i, loss in enumerate([3, 2, 2.5, 2])]
        >>> EarlyStopping(patience=2).reason_to_stop(History(losses))
        'val_loss has not become better for 2 epochs'
        >>> EarlyStopping(patience=3).reason_to_stop(History(losses))
        ''
        """
        waited = len(history) - 1 - history.best_epoch
        if waited < self.patience:
            return ""
        return f"{self.monitor} has not become better for {waited} epoch{'s' * (waited > 1)}"
