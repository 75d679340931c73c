"""The training loop: :func:`fit`, its history, its early stopping, logs, and optimizers."""

from .early_stopping import EarlyStopping, StopTraining
from .fit import fit
from .history import EpochRecord, History
from .logs import CsvLog, ScalarLog
from .optimizers import make_optimizer

__all__ = [
    "CsvLog",
    "EarlyStopping",
    "EpochRecord",
    "History",
    "ScalarLog",
    "StopTraining",
    "fit",
    "make_optimizer",
]
