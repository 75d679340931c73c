"""Stages of quantization-aware training: frozen ranges, layers in float, folded batch norms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import InputError
from ..modules.models import own_module
from .qat_module import QatModule


def freeze_ranges(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Freezes the ranges of the named modules' outputs; without a pattern all ranges.

    With frozen ranges, train mode computes the same as evaluation mode, and is cheaper.

    Raises:
        InputError: it is not a QatModule, with or without a wrapper.
        ModuleNameError: a pattern matches nothing.
        QuantizationError: a value has no range yet.

    >>> import torch, torch_nano
    >>> qat = torch_nano.prepare_qat(nn.Linear(4, 3), torch.zeros(2, 4), calibrate=torch.eye(4))
    >>> freeze_ranges(qat)
    >>> bool(qat.quantization_ranges.frozen.all())
    True
    """
    qat = _qat_module(qat)
    qat.quantization_ranges.freeze(_ranges_of(qat, patterns), True)


def unfreeze_ranges(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Unfreezes ranges; the inverse of :func:`freeze_ranges`."""
    qat = _qat_module(qat)
    qat.quantization_ranges.freeze(_ranges_of(qat, patterns), False)


def disable_quantization(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Lets the named modules (all without a pattern) compute in float: weights and outputs are not quantized.

    The inputs of a quantized layer are always quantized. An image cannot have layers in float: enable them
    again before `to_nano`, which refuses otherwise.

    Raises:
        InputError: it is not a QatModule, with or without a wrapper.
        ModuleNameError: a pattern matches nothing.
    """
    qat = _qat_module(qat)
    qat._in_float |= qat._layers_of(patterns)


def enable_quantization(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Enables quantization again after :func:`disable_quantization`, or after `float_layers`, `first_layer`
    or `last_layer` of :func:`prepare_qat`.
    """
    qat = _qat_module(qat)
    qat._in_float -= qat._layers_of(patterns)


def fold_batch_norm(qat: nn.Module) -> None:
    """Folds the batch norms with their running statistics from now on, as on the device."""
    _qat_module(qat)._folds_batch_norm = True


def _qat_module(qat: nn.Module) -> QatModule:
    """The QatModule, taken out of wrappers.

    Raises:
        InputError: it is something else.
    """
    own = own_module(qat, "qat")
    if not isinstance(own, QatModule):
        raise InputError(f"qat is a {type(own).__name__}; expected what prepare_qat returns")
    return own


def _ranges_of(qat: QatModule, patterns: Sequence[str | nn.Module]) -> list[str]:
    graph, layers = qat._graph, qat._layers_of(patterns)
    names = [name for name in graph.inputs if name in layers or not patterns]
    names += [name for node in graph.nodes if node.name in layers for name in node.outputs]
    # Indices have none.
    return [name for name in names if qat._plan.has_range(name)]
