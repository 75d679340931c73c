"""Quantization-aware training (QAT): a module that trains through the device's arithmetic."""

from .prepare import prepare_qat
from .qat_module import QatModule
from .stages import (
    disable_quantization,
    enable_quantization,
    fold_batch_norm,
    freeze_ranges,
    unfreeze_ranges,
)

__all__ = [
    "QatModule",
    "disable_quantization",
    "enable_quantization",
    "fold_batch_norm",
    "freeze_ranges",
    "prepare_qat",
    "unfreeze_ranges",
]
