"""PyTorch models as exact int8 programs for microcontrollers, with a head that goes on learning there.

>>> import torch, torch_nano as tn
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> tn.freeze(model, "0")
>>> x = torch.randn(64, 4)
>>> nano = tn.to_nano(model, x, calibrate=x)
>>> nano(x).shape, nano.head
(torch.Size([64, 3]), SgdHead(features=8, classes=3))

What most scripts need is here; the rest is in the submodules:

- :mod:`~torch_nano.heads`: trainers, and heads as modules
- :mod:`~torch_nano.device`: boards, what they answer, and records of what they did
- :mod:`~torch_nano.training`, :mod:`~torch_nano.transfer`: the training loop, and transfer learning
- :mod:`~torch_nano.qat`: stages of quantization-aware training
- :mod:`~torch_nano.functional`, :mod:`~torch_nano.ops`: the device's operators as functions, and as layers
- :mod:`~torch_nano.zoo`: small trained models, with their cards
- :mod:`~torch_nano.chips`, :mod:`~torch_nano.results`, :mod:`~torch_nano.errors`
"""

import warnings as _warnings
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from torch import nn as _nn

from . import chips, device, errors, functional, heads, ops, qat, results, training, transfer, zoo
from ._native import __version__
from .compile.nano_module import NanoModule, load
from .compile.nano_module_functions import compare, export, save, summary, verify
from .compile.to_nano import to_nano
from .device import Device
from .errors import TorchNanoError, TorchNanoWarning
from .modules.freeze import freeze, frozen, unfreeze
from .qat import prepare_qat
from .series.windows import windows
from .training import EarlyStopping, fit

__all__ = [
    "Device",
    "EarlyStopping",
    "NanoModule",
    "TorchNanoError",
    "TorchNanoWarning",
    "__version__",
    "chips",
    "compare",
    "device",
    "errors",
    "export",
    "fit",
    "freeze",
    "frozen",
    "functional",
    "heads",
    "load",
    "ops",
    "prepare_qat",
    "qat",
    "results",
    "save",
    "summary",
    "to_nano",
    "training",
    "transfer",
    "unfreeze",
    "verify",
    "windows",
    "zoo",
]


def _to_nano_method(self: _nn.Module, *arguments: _Any, **options: _Any) -> NanoModule:
    """:func:`torch_nano.to_nano` of this module."""
    return to_nano(self, *arguments, **options)


# A torch that has such a method one day keeps it: the function is the primary face.
if not hasattr(_nn.Module, "to_nano"):
    _nn.Module.to_nano = _to_nano_method  # type: ignore[attr-defined]


def __dir__() -> list[str]:
    return __all__


# Hidden from type checkers, which then report a wrong name.
if not _TYPE_CHECKING:
    _told: set[str] = set()

    def __getattr__(name: str) -> _Any:
        """A name of a submodule, most of which were here once: with a warning, once."""
        for module in (errors, device, heads, transfer, qat, training, results):
            if name in module.__all__:
                place = f"torch_nano.{module.__name__.rpartition('.')[2]}"
                if name not in _told:
                    _told.add(name)
                    _warnings.warn(
                        f"torch_nano.{name} has moved: {place}.{name}", DeprecationWarning, stacklevel=2
                    )
                return getattr(module, name)
        raise AttributeError(f"module 'torch_nano' has no attribute {name!r}")
