"""Exceptions of this package. Each message says what was given, what was expected and what to do."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    "ConnectionFailed",
    "ConnectionLost",
    "CycleModelError",
    "DeviceError",
    "DeviceRestarted",
    "DeviceTimeout",
    "ExportError",
    "FileFormatError",
    "FitError",
    "FreezeError",
    "HeadError",
    "HeadWarning",
    "InputError",
    "LabelError",
    "MissingFileError",
    "MissingPackageError",
    "ModuleNameError",
    "NonFiniteError",
    "QuantizationError",
    "RecordError",
    "SizeWarning",
    "StreamError",
    "TooLargeError",
    "TorchNanoError",
    "TorchNanoWarning",
    "TrainingDivergedError",
    "UnsupportedError",
    "UnsupportedNode",
    "UpdateError",
    "WrongModelError",
]


class TorchNanoError(Exception):
    """Base class of all errors of this package."""

    #: Dotted path of the module that the error is about; "" for the model itself, or without a module.
    module_path: str = ""


#: Further places of calls of one kind that a message lists.
_PLACES = 3


@dataclass(frozen=True)
class UnsupportedNode:
    """One call of the model that cannot run on the device."""

    #: Dotted path of the module that makes the call, "" for the model itself.
    module_path: str
    #: "file:line" of the user's code, "" if unknown.
    source: str
    #: The ATen operator.
    operator: str
    reason: str
    #: What to write instead; "" if nothing is known.
    way_out: str = ""

    @property
    def place(self) -> str:
        """Where the call is: its module, and the line in the user's code."""
        module = self.module_path or "(the model itself)"
        return f"{module} ({self.source})" if self.source else module

    @property
    def kind(self) -> tuple[str, str, str]:
        """What calls have in common that one message describes."""
        return self.operator, self.reason, self.way_out

    def __str__(self) -> str:
        return self.described(())

    def described(self, others: Sequence[UnsupportedNode]) -> str:
        """The message of this call and of others of its kind."""
        source = f" ({self.source})" if self.source else ""
        lines = [f"{self.module_path or '(the model itself)'}: {self.operator}{source}"]
        if others:
            places = ", ".join(other.place for other in others[:_PLACES])
            more = f", and {len(others) - _PLACES} more" if len(others) > _PLACES else ""
            lines.append(f"    {len(others) + 1} calls: also {places}{more}")
        lines.append(f"    {self.reason}")
        return "\n".join([*lines, f"    way out: {self.way_out}"] if self.way_out else lines)


class UnsupportedError(TorchNanoError):
    """The model has calls that cannot run on the device, or in quantization-aware training.

    :attr:`nodes` has all of them, in order; the message describes each kind once, with the first places.

    >>> print(UnsupportedError([UnsupportedNode("up", "net.py:7", "aten.fft", "no such call", "drop it")]))
    1 call of the model cannot run on the device:
    - up: aten.fft (net.py:7)
        no such call
        way out: drop it
    """

    def __init__(self, nodes: Sequence[UnsupportedNode], cannot: str = "run on the device") -> None:
        self.nodes = tuple(nodes)
        calls = "1 call" if len(self.nodes) == 1 else f"{len(self.nodes)} calls"
        kinds: dict[tuple[str, str, str], list[UnsupportedNode]] = {}
        for node in self.nodes:
            kinds.setdefault(node.kind, []).append(node)
        of_kinds = f", of {len(kinds)} kind{'s'[: len(kinds) > 1]}," if len(kinds) < len(self.nodes) else ""
        title = f"{calls} of the model{of_kinds} cannot {cannot}:"
        super().__init__(
            "\n".join([title, *(f"- {first.described(rest)}" for first, *rest in kinds.values())])
        )


class CaptureError(TorchNanoError):
    """torch.export cannot trace the model, or a device model cannot have its inputs or outputs."""


class InputError(TorchNanoError, ValueError):
    """A tensor has the wrong shape, dtype or contents, or another argument is of the wrong kind or range."""


class TorchNanoWarning(UserWarning):
    """Base class of all warnings of this package. Each says what was found and what to do."""


class ChannelRangeWarning(TorchNanoWarning):
    """Channels of an input are in so different units that one scale rounds some of them away."""


class CalibrationWarning(TorchNanoWarning):
    """The calibration data says too little of the values that the device will see."""


class AccuracyWarning(TorchNanoWarning):
    """The outputs in int8 are far from those in float."""


class SizeWarning(TorchNanoWarning):
    """A model fits a chip only just, or the firmware is not built for the chip."""


class HeadWarning(TorchNanoWarning):
    """Layers were frozen, and still nothing learns on the device."""


def warn(message: str, category: type[TorchNanoWarning]) -> None:
    """Warns at the line outside of this package that led here."""
    package, level = str(Path(__file__).parent), 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class NonFiniteError(TorchNanoError, ValueError):
    """A weight or an activation is NaN or infinite; the message names the module."""


class QuantizationError(TorchNanoError, ValueError):
    """A layer cannot be quantized; the message names the module and the reason."""


class StreamError(TorchNanoError, ValueError):
    """No stream has the model's bytes for a window; the message names the module."""


class ChipError(TorchNanoError, ValueError):
    """There is no chip of this name, or it cannot do what was asked."""


class TooLargeError(TorchNanoError, ValueError):
    """A model does not fit a chip; the message says what is short, where, and what helps."""


class FreezeError(TorchNanoError, ValueError):
    """Calls of freeze and unfreeze contradict each other, or the state of the model or its optimizer."""


class FitError(TorchNanoError, ValueError):
    """A training cannot start with these arguments: they are wrong, or contradict each other."""


class TrainingDivergedError(NonFiniteError):
    """The loss, a gradient or a weight became NaN or infinite while training.

    The model is as it was before that batch.
    """

    def __init__(
        self, message: str, *, epoch: int, batch: int, module: str, learning_rates: dict[str, float]
    ) -> None:
        super().__init__(message)
        #: From 0.
        self.epoch = epoch
        #: From 0; of the validation data if all training batches were done.
        self.batch = batch
        #: The first module, in forward order, with NaN or infinity; "" for the model itself.
        self.module = module
        #: Name of the parameter group -> its learning rate.
        self.learning_rates = learning_rates


class CheckpointError(TorchNanoError, ValueError):
    """A checkpoint was written by a training with another model, optimizer or arguments."""


class HeadError(TorchNanoError, ValueError):
    """The model has no such trainable head, or an argument does not fit the head."""


class ModuleNameError(TorchNanoError, ValueError):
    """A pattern matches no module; the message lists similar names."""


class FileFormatError(TorchNanoError, ValueError):
    """A file has another format than expected, is damaged, or was written by another version."""


class MissingFileError(TorchNanoError, FileNotFoundError):
    """There is no such file to read, or no such folder to write into."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno, self.strerror = errno.ENOENT, os.strerror(errno.ENOENT)

    def __str__(self) -> str:
        # That of an OSError would be the number's text alone.
        return str(self.args[0])


class MissingPackageError(TorchNanoError, ImportError):
    """A package that is optional is not installed; the message says how to install it."""


class ExportError(TorchNanoError, OSError):
    """An export cannot write into its folder, or would overwrite files that are not its own."""


class DeviceError(TorchNanoError):
    """The device refused a request, its state unchanged, or gave an unexpected answer."""

    def __init__(self, message: str, failure: str = "") -> None:
        super().__init__(message)
        #: The protocol's name of the refusal, such as "EmptyRing"; "" if the device did not refuse.
        self.failure = failure


class WrongModelError(DeviceError):
    """The device runs another model than the one that was given."""


class UpdateError(DeviceError):
    """The device refused an update of its model, or could not start it: it runs the model before.

    Its `failure` is the reason: "TooLarge" for the device's slots; "Kernel", "Trainer", "Ram" or "Window" for
    its program; "Version", of an older or newer format; "Checksum", damaged on the way; "NoSlots",
    "Unconfirmed" and others of the protocol; "NotStarted" or "Outputs" if it was tried and not kept.
    """


class LabelError(DeviceError, ValueError):
    """There is no such class, or the label is invalid; the message lists similar names."""


class ConnectionFailed(DeviceError, ConnectionError):
    """The connection failed: no such port or transport, the port is busy, or nothing listens there."""


class ConnectionLost(DeviceError, ConnectionError):
    """The connection ended during a request. Repeat the request: it is executed only once."""


class DeviceTimeout(DeviceError, TimeoutError):
    """The device did not answer in time. Repeat the request: it is executed only once."""


class DeviceRestarted(DeviceError):
    """The device has restarted and lost what was not saved. It did not execute the request after that."""


class BoardError(ConnectionFailed):
    """The board cannot be started, or was closed."""


class BoardStopped(BoardError, ConnectionLost):
    """The board stopped, with `exit_status` and its `last_output` (text)."""

    def __init__(self, exit_status: int, last_output: str) -> None:
        self.exit_status = exit_status
        self.last_output = last_output
        super().__init__(f"the board stopped with exit status {exit_status}; its last output:\n{last_output}")


class BoardTimeout(BoardError, DeviceTimeout):
    """The board did not send or accept a byte in time; `last_output` is the text that it printed before."""

    def __init__(self, action: str, seconds: float, last_output: str) -> None:
        self.last_output = last_output
        printed = f"its last output:\n{last_output}" if last_output else "it printed nothing"
        super().__init__(
            f"the board did not {action} within {seconds:g} s (a larger `timeout` allows more); {printed}"
        )


class CycleModelError(ConnectionFailed):
    """QEMU cannot load the cycle model; `last_output` is what it printed."""

    def __init__(self, last_output: str) -> None:
        self.last_output = last_output
        super().__init__(
            "QEMU cannot load the cycle model, which needs QEMU 7.2 or newer, built with plugins (as "
            f"Debian's). QEMU printed:\n{last_output}"
        )


class RecordError(TorchNanoError, ValueError):
    """A record cannot be made, or a file is not a record of this version and model; names the line."""


def in_module(error: Exception, module_path: str, way_out: str = "") -> TorchNanoError:
    """An error with the module in its message; native errors become a QuantizationError.

    >>> in_module(InputError("a wrong shape"), "stem.0")
    InputError("module 'stem.0': a wrong shape")
    """
    kind = type(error) if isinstance(error, TorchNanoError) else QuantizationError
    place = f"module {module_path!r}" if module_path else "the model itself"
    named = kind(f"{place}: {error}{way_out}")
    named.module_path = module_path
    return named
