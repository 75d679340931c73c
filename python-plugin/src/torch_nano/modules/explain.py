"""Why a model cannot take its input, in terms of its modules."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..arguments import INDEX_DTYPES
from ..errors import InputError, TorchNanoError
from .backup import Backup
from .inputs import Inputs, call
from .models import own_module
from .modes import evaluation_mode
from .watching import describe, tensors_in, watching

#: A layer's expectation of its input: class -> (attribute, axis, dimensions without a batch).
_EXPECTED = (
    (nn.Linear, "in_features", -1),
    (nn.modules.conv._ConvNd, "in_channels", 1),
    (_BatchNorm, "num_features", 1),
)
#: A batch of this size is not mistaken for channels: few layers have 7.
_UNUSUAL = 7


def run(model: nn.Module, x: Any, where: str) -> Any:
    """Runs the model; returns its output.

    Args:
        where: names `x` in the message.

    Raises:
        InputError: the model fails; the message says in which module and why.
    """
    try:
        return call(model, x)
    except TorchNanoError as error:
        # The model or a strategy has raised a clear error itself.
        error.add_note(f"in {where}")
        raise
    except Exception as error:
        raise InputError(f"{where}: the model cannot take it: {explain(model, x, error)}") from error


def explain(model: nn.Module, x: Any, error: Exception) -> str:
    """Describes which module of a model fails, what it gets and what it expects.

    Args:
        error: the exception that the model raised for `x`.
    """
    model = own_module(model)
    if isinstance(x, Inputs) and x.only is not None:
        x = x.only
    if is_one_sample(model, x):
        return missing_batch(x)
    running: list[tuple[str, nn.Module, Any]] = []
    made: list[tuple[str, nn.Module]] = []

    def before(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        running.append((name, module, arguments))

    def after(name: str, module: nn.Module, output: Any) -> None:
        running.pop()
        made.append((name, module))

    with watching(model, before=before, after=after):
        try:
            call(model, x)
        except Exception as again:
            error = again
    if not running:
        return _text(error)
    name, module, arguments = running[-1]
    given = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(arguments)) or "no tensors"
    origin = f" from {describe(*made[-1])}" if made else ""
    reason = _mismatch(module, arguments[0]) if arguments and isinstance(arguments[0], Tensor) else ""
    return f"{describe(name, module)} gets {given}{origin}{reason or f' and fails: {_text(error)}'}"


def _text(error: Exception) -> str:
    """An error in one line: the first paragraph of torch's long ones."""
    text = " ".join(str(error).strip().split("\n\n")[0].split())
    return (
        text if isinstance(error, RuntimeError | ValueError) and text else f"{type(error).__name__}: {text}"
    )


def _mismatch(module: nn.Module, x: Tensor) -> str:
    """Describes how a module's input differs from what it expects; "" if nothing is known."""
    if isinstance(module, nn.Embedding):
        if x.dtype not in INDEX_DTYPES:
            return f" of {_name(x.dtype)}, but expects indices; give it integers, such as x.long()"
        outside = x[(x < 0) | (x >= module.num_embeddings)]
        if outside.numel():
            return (
                f" with the index {int(outside[0])}, but has num_embeddings={module.num_embeddings}; "
                f"expected indices from 0 to {module.num_embeddings - 1}"
            )
        return ""
    for kind, attribute, axis in _EXPECTED:
        if isinstance(module, kind) and x.dim() > 1:
            actual, expected = x.shape[axis], getattr(module, attribute)
            if actual != expected:
                return (
                    f", but expects {attribute}={expected}; make it {attribute}={actual}, or give it "
                    "what it expects"
                )
    dtype = next((tensor.dtype for tensor in module.parameters(recurse=False)), x.dtype)
    if dtype != x.dtype:
        return (
            f" of {_name(x.dtype)}, but its parameters are {_name(dtype)}; give both the same, such as "
            "torch.float32"
        )
    if isinstance(module, _BatchNorm) and has_one_value(x):
        return one_value_per_channel()
    return ""


def has_one_value(x: Tensor) -> bool:
    """Whether a batch norm's input [N, channels, ...] has one value per channel, and so no variance."""
    return x.dim() > 1 and x.shape[1] > 0 and x.numel() == x.shape[1]


def one_value_per_channel() -> str:
    """The end of a message about a batch norm that gets one value per channel in training."""
    return (
        ": one value per channel, which has no variance; train on more samples at a time: leave out a last "
        "batch of one sample (DataLoader(..., drop_last=True)), or take another batch size"
    )


def is_one_sample(model: nn.Module, x: Any) -> bool:
    """Whether a tensor is one sample without a batch dimension: the model takes a batch of `x`, but does not
    take `x` as a batch.
    """
    if not isinstance(x, Tensor) or x.dim() == 0 or len(x) == 0:
        return False
    model = own_module(model)
    backup = Backup(model)
    with evaluation_mode(model), torch.no_grad():
        found = _takes_batch(model, x) and not _takes_batch(model, x[0])
    backup.restore()
    return found


def _takes_batch(model: nn.Module, sample: Tensor) -> bool:
    """Whether the model maps a batch of this sample to as many outputs."""
    with suppress(Exception):
        output = next(tensors_in(model(sample.expand(_UNUSUAL, *sample.shape).contiguous())))
        return output.dim() > 0 and len(output) == _UNUSUAL
    return False


def missing_batch(x: Tensor) -> str:
    """The message for one sample where a batch is expected."""
    return (
        f"a tensor of shape {tuple(x.shape)} is one sample; the batch dimension is missing: give x[None], or "
        "torch.stack(samples) of several"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
