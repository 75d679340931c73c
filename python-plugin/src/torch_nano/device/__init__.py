"""Devices: the client, boards to connect to, what they answer, and records of what they did."""

from .answers import DeviceInfo, DeviceSettings, DeviceStats, LogEntry, Prediction
from .client import Device
from .fitting import FitResult
from .recording.record import Recording, record
from .recording.replay import Replay, ReplayDifference, replay
from .recording.sensing_replay import SensingReplay, replay_sensing
from .report import Report
from .transport.cycles import Counts
from .transport.qemu import QemuBoard
from .transport.recorded_sensor import RecordedSensor, SensingOptions
from .transport.streams import SimulatedBoard
from .unasked import Sample
from .updating import UpdateResult

__all__ = [
    "Counts",
    "Device",
    "DeviceInfo",
    "DeviceSettings",
    "DeviceStats",
    "FitResult",
    "LogEntry",
    "Prediction",
    "QemuBoard",
    "RecordedSensor",
    "Recording",
    "Replay",
    "ReplayDifference",
    "Report",
    "Sample",
    "SensingOptions",
    "SensingReplay",
    "SimulatedBoard",
    "UpdateResult",
    "record",
    "replay",
    "replay_sensing",
]
