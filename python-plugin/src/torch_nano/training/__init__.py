"""The training loop: :func:`fit`, its history, its early stopping, and optimizers."""

from .early_stopping import EarlyStopping, StopTraining
from .fit import fit
from .history import EpochRecord, History
from .optimizers import make_optimizer

__all__ = ["EarlyStopping", "EpochRecord", "History", "StopTraining", "fit", "make_optimizer"]
