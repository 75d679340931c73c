"""PyTorch models as exact int8 programs for microcontrollers, with a head that goes on learning there.

>>> import torch, torch_nano as tn
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> tn.freeze(model, "0")
>>> x = torch.randn(64, 4)
>>> nano = tn.to_nano(model, x, calibrate=x)
>>> nano(x).shape, nano.head
(torch.Size([64, 3]), SgdHead(features=8, classes=3))
"""

from typing import Any

from torch import nn as _nn

from . import functional, heads
from ._native import __version__
from .comparison.report import Comparison, LayerComparison, OutputComparison
from .compile.nano_module import NanoModule, load
from .compile.profile import LayerProfile, Profile
from .compile.stream import Stream
from .compile.summary import LayerSummary, Summary
from .compile.to_nano import to_nano
from .compile.verify import LayerDifference, VerifyReport
from .device.answers import DeviceInfo, DeviceSettings, DeviceStats, LogEntry, Prediction
from .device.client import Device
from .device.fitting import FitResult
from .device.recording.record import Recording, record
from .device.recording.records import RecordError
from .device.recording.replay import Replay, ReplayDifference, replay
from .device.recording.sensing_replay import SensingReplay, replay_sensing
from .device.report import Report
from .device.transport.cycles import Counts, CycleModelError
from .device.transport.qemu import BoardError, BoardStopped, BoardTimeout, QemuBoard
from .device.transport.recorded_sensor import RecordedSensor, SensingOptions
from .device.transport.streams import SimulatedBoard
from .device.updating import UpdateResult
from .errors import (
    AccuracyWarning,
    CalibrationWarning,
    CaptureError,
    ChannelRangeWarning,
    CheckpointError,
    ChipError,
    ConnectionFailed,
    ConnectionLost,
    DeviceError,
    DeviceRestarted,
    DeviceTimeout,
    ExportError,
    FileFormatError,
    FitError,
    FreezeError,
    HeadError,
    HeadWarning,
    InputError,
    LabelError,
    MissingFileError,
    ModuleNameError,
    NonFiniteError,
    QuantizationError,
    SizeWarning,
    StreamError,
    TooLargeError,
    TorchNanoError,
    TorchNanoWarning,
    TrainingDivergedError,
    UnsupportedError,
    UnsupportedNode,
    UpdateError,
    WrongModelError,
)
from .heads import LayersHead, LdaHead, PrototypeHead, SgdHead
from .modules.freeze import freeze, frozen, unfreeze
from .qat.prepare import prepare_qat
from .qat.qat_module import QatModule
from .qat.stages import (
    disable_quantization,
    enable_quantization,
    fold_batch_norm,
    freeze_ranges,
    unfreeze_ranges,
)
from .training.early_stopping import EarlyStopping, StopTraining
from .training.fit import fit
from .training.history import EpochRecord, History
from .training.optimizers import make_optimizer
from .transfer.batch_norm import reestimate_batch_norm
from .transfer.coral import coral_alignment, coral_loss
from .transfer.distillation import distillation, distillation_loss
from .transfer.feature_extraction import extract_features, feature_extraction
from .transfer.features import (
    FeatureExtractor,
    compare_model_features,
    get_layer_outputs,
    get_model_feature_extractor,
    visualize_layer_activations,
)
from .transfer.fine_tuning import fine_tune, fine_tuning
from .transfer.gradual_unfreezing import gradual_unfreezing
from .transfer.transfer_model import TransferModel, freeze_layers, unfreeze_layers

__all__ = [
    "AccuracyWarning",
    "BoardError",
    "BoardStopped",
    "BoardTimeout",
    "CalibrationWarning",
    "CaptureError",
    "ChannelRangeWarning",
    "CheckpointError",
    "ChipError",
    "ChipFit",
    "Comparison",
    "ConnectionFailed",
    "ConnectionLost",
    "Counts",
    "CycleModelError",
    "Device",
    "DeviceError",
    "DeviceInfo",
    "DeviceRestarted",
    "DeviceSettings",
    "DeviceStats",
    "DeviceTimeout",
    "EarlyStopping",
    "EpochRecord",
    "ExportError",
    "FeatureExtractor",
    "FileFormatError",
    "FitError",
    "FitResult",
    "FreezeError",
    "HeadError",
    "HeadWarning",
    "History",
    "InputError",
    "LabelError",
    "LayerComparison",
    "LayerDifference",
    "LayerProfile",
    "LayerSummary",
    "LayersHead",
    "LdaHead",
    "LogEntry",
    "MissingFileError",
    "ModuleNameError",
    "NanoModule",
    "NonFiniteError",
    "OutputComparison",
    "Prediction",
    "Profile",
    "PrototypeHead",
    "QatModule",
    "QemuBoard",
    "QuantizationError",
    "RecordError",
    "RecordedSensor",
    "Recording",
    "Replay",
    "ReplayDifference",
    "Report",
    "SensingOptions",
    "SensingReplay",
    "SgdHead",
    "SimulatedBoard",
    "SizeWarning",
    "StopTraining",
    "Stream",
    "StreamError",
    "Summary",
    "TooLargeError",
    "TorchNanoError",
    "TorchNanoWarning",
    "TrainingDivergedError",
    "TransferModel",
    "UnsupportedError",
    "UnsupportedNode",
    "UpdateError",
    "UpdateResult",
    "VerifyReport",
    "WrongModelError",
    "__version__",
    "compare_model_features",
    "coral_alignment",
    "coral_loss",
    "disable_quantization",
    "distillation",
    "distillation_loss",
    "enable_quantization",
    "extract_features",
    "feature_extraction",
    "fine_tune",
    "fine_tuning",
    "fit",
    "fold_batch_norm",
    "freeze",
    "freeze_layers",
    "freeze_ranges",
    "frozen",
    "functional",
    "get_layer_outputs",
    "get_model_feature_extractor",
    "gradual_unfreezing",
    "heads",
    "load",
    "make_optimizer",
    "prepare_qat",
    "record",
    "reestimate_batch_norm",
    "replay",
    "replay_sensing",
    "to_nano",
    "unfreeze",
    "unfreeze_layers",
    "unfreeze_ranges",
    "visualize_layer_activations",
]


def _to_nano_method(self: _nn.Module, *arguments: Any, **options: Any) -> NanoModule:
    """:func:`torch_nano.to_nano` of this module."""
    return to_nano(self, *arguments, **options)


# A torch that has such a method one day keeps it: the function is the primary face.
if not hasattr(_nn.Module, "to_nano"):
    _nn.Module.to_nano = _to_nano_method  # type: ignore[attr-defined]
