"""The errors of this package. Every one says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TorchNanoError(Exception):
    """Base of all errors of this package."""


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
    """The model holds calls that cannot run on the device: all of them, in order, in :attr:`nodes`.

    >>> print(UnsupportedError([UnsupportedNode("up", "net.py:7", "aten.fft", "no such call", "drop it")]))
    1 call of the model cannot run on the device:
    - up: aten.fft (net.py:7)
        no such call
        way out: drop it
    """

    def __init__(self, nodes: Sequence[UnsupportedNode]) -> None:
        self.nodes = tuple(nodes)
        calls = "1 call" if len(self.nodes) == 1 else f"{len(self.nodes)} calls"
        title = f"{calls} of the model cannot run on the device:"
        super().__init__("\n".join([title, *(f"- {node}" for node in self.nodes)]))


class CaptureError(TorchNanoError):
    """torch.export cannot trace the model, or its inputs and outputs are not those of a device model."""


class InputError(TorchNanoError, ValueError):
    """A tensor has the wrong shape, dtype or contents."""


class NonFiniteError(TorchNanoError, ValueError):
    """A weight or an activation is NaN or infinite; the message names the module."""


class QuantizationError(TorchNanoError, ValueError):
    """A layer cannot be quantized; the message names the module and the reason."""


class HeadError(TorchNanoError, ValueError):
    """The model has no such trainable head, or what was given does not fit it."""


class ModuleNameError(TorchNanoError, ValueError):
    """A pattern matches no module; the message lists similar names."""


class FileFormatError(TorchNanoError, ValueError):
    """A file is not a saved model, is damaged, or was written by another version."""


class ExportError(TorchNanoError, FileExistsError):
    """An export would overwrite files that are not its own."""
