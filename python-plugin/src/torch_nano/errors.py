"""The errors of this package. Every one says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TorchNanoError(Exception):
    """Base of all errors of this package."""

    #: Dotted path of the module that the error is about, "" if it is about none or the model itself.
    module_path: str = ""


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
    #: What to write instead, "" if there is nothing.
    way_out: str = ""

    def __str__(self) -> str:
        place = f"{self.module_path or '(the model itself)'}: {self.operator}"
        lines = [f"{place} ({self.source})" if self.source else place, f"    {self.reason}"]
        return "\n".join([*lines, f"    way out: {self.way_out}"] if self.way_out else lines)


class UnsupportedError(TorchNanoError):
    """The model holds calls that cannot run on the device, or in the training that :func:`prepare_qat` makes:
    all of them, in order, in :attr:`nodes`.

    >>> print(UnsupportedError([UnsupportedNode("up", "net.py:7", "aten.fft", "no such call", "drop it")]))
    1 call of the model cannot run on the device:
    - up: aten.fft (net.py:7)
        no such call
        way out: drop it
    """

    def __init__(self, nodes: Sequence[UnsupportedNode], cannot: str = "run on the device") -> None:
        self.nodes = tuple(nodes)
        calls = "1 call" if len(self.nodes) == 1 else f"{len(self.nodes)} calls"
        title = f"{calls} of the model cannot {cannot}:"
        super().__init__("\n".join([title, *(f"- {node}" for node in self.nodes)]))


class CaptureError(TorchNanoError):
    """torch.export cannot trace the model, or its inputs and outputs are not those of a device model."""


class InputError(TorchNanoError, ValueError):
    """A tensor has the wrong shape, dtype or contents, or another argument is of the wrong kind or range."""


class NonFiniteError(TorchNanoError, ValueError):
    """A weight or an activation is NaN or infinite; the message names the module."""


class QuantizationError(TorchNanoError, ValueError):
    """A layer cannot be quantized; the message names the module and the reason."""


class FreezeError(TorchNanoError, ValueError):
    """Calls about freezing contradict each other, or what else the model or its optimizer holds."""


class FitError(TorchNanoError, ValueError):
    """A training cannot start with these arguments: they are wrong, or contradict each other."""


class TrainingDivergedError(NonFiniteError):
    """The loss, a gradient or a weight became NaN or infinite while training.

    The model holds what it held before that batch.
    """

    def __init__(
        self, message: str, *, epoch: int, batch: int, module: str, learning_rates: dict[str, float]
    ) -> None:
        super().__init__(message)
        #: From 0.
        self.epoch = epoch
        #: From 0; of the validation data if the training data were through.
        self.batch = batch
        #: The first module, in forward order, with something not finite; "" for the model itself.
        self.module = module
        #: Name of the parameter group -> its learning rate.
        self.learning_rates = learning_rates


class CheckpointError(TorchNanoError, ValueError):
    """A checkpoint was written by a training with another model, optimizer or arguments."""


class HeadError(TorchNanoError, ValueError):
    """The model has no such trainable head, or what was given does not fit it."""


class ModuleNameError(TorchNanoError, ValueError):
    """A pattern matches no module; the message lists similar names."""


class FileFormatError(TorchNanoError, ValueError):
    """A file is no saved model, or no head, is damaged, or was written by another version."""


class ExportError(TorchNanoError, OSError):
    """An export cannot write into its folder, or would overwrite files that are not its own."""


class DeviceError(TorchNanoError):
    """The device refused a request, with its state unchanged, or answered something else than asked."""

    def __init__(self, message: str, failure: str = "") -> None:
        super().__init__(message)
        #: The protocol's name of why it refused, such as "EmptyRing"; "" if it did not refuse.
        self.failure = failure


class WrongModelError(DeviceError):
    """The device runs another model than the one that was given."""


class LabelError(DeviceError, ValueError):
    """There is no such class, or it is no label at all; the message lists similar names."""


class ConnectionFailed(DeviceError, ConnectionError):
    """The connection cannot be made: no such port, a busy one, nobody who listens, no such transport."""


class ConnectionLost(DeviceError, ConnectionError):
    """The connection ended in the middle of a request. Repeat that: it is executed once all the same."""


class DeviceTimeout(DeviceError, TimeoutError):
    """The device did not answer in time. Repeat the request: it is executed once all the same."""


class DeviceRestarted(DeviceError):
    """The device has started anew: what was not saved is lost. The request was not executed after that."""


def in_module(error: Exception, module_path: str, way_out: str = "") -> TorchNanoError:
    """The error of a module: one of this package as it is, one of the native side as a QuantizationError.

    >>> in_module(InputError("a wrong shape"), "stem.0")
    InputError("module 'stem.0': a wrong shape")
    """
    kind = type(error) if isinstance(error, TorchNanoError) else QuantizationError
    place = f"module {module_path!r}" if module_path else "the model itself"
    named = kind(f"{place}: {error}{way_out}")
    named.module_path = module_path
    return named
