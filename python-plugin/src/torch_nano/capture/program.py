"""torch.export of a model in one of its modes, before decomposition."""

from __future__ import annotations

import inspect
import logging
import random
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import UnsupportedOperatorException
from torch.nn.modules import transformer
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ..arguments import INDEX_DTYPES, check_tensor
from ..errors import CaptureError, InputError, TorchNanoError, UnsupportedError, UnsupportedNode
from ..modules.backup import Backup
from ..modules.explain import explain, is_one_sample, missing_batch
from ..modules.inputs import Inputs
from ..modules.modes import evaluation_mode, set_mode
from .compositions.attention import multi_head_attention_forward
from .constant_numbers import ConstantNumbers
from .recurrent import RecurrentLayers
from .refusals import refusal
from .returned import plain_outputs
from .source_lines import user_line

aten = torch.ops.aten

#: Dimensions of a value on the device.
LARGEST_RANK = 3
_DROPOUTS = frozenset(
    {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
)


def batch_of(model: nn.Module, example: Any) -> Inputs:
    """An example of at least two samples, on the model's device and in its dtype.

    Raises:
        InputError: the example is not a float tensor with a batch of samples, or several of one batch size.
    """
    if isinstance(example, Mapping):
        order = list(inspect.signature(model.forward).parameters)
        names = sorted(example, key=lambda name: order.index(name) if name in order else len(order))
        inputs = Inputs(named={str(name): example[name] for name in names})
    else:
        inputs = Inputs(tuple(example) if isinstance(example, list | tuple) else (example,))
    for name, tensor in _labelled(inputs):
        _check_example(model, name, tensor, inputs)
    if len({len(tensor) for tensor in inputs.tensors}) > 1:
        raise InputError(f"the example has {inputs}; expected one batch size")
    if not inputs.tensors:
        raise InputError("the example is empty; expected a tensor, or several by position or by name")
    first = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), None)

    def batch(tensor: Tensor) -> Tensor:
        samples = tensor.detach()
        # torch.export would specialize on a batch of 1.
        repeated = samples if len(samples) > 1 else samples.expand(2, *samples.shape[1:]).clone()
        like = repeated if first is None else first
        return repeated.to(like.device, like.dtype if repeated.is_floating_point() else repeated.dtype)

    return inputs.map(batch)


def _labelled(inputs: Inputs) -> Iterator[tuple[str, object]]:
    """The tensors with their names in messages."""
    if inputs.only is not None or (len(inputs.positional) == 1 and not inputs.named):
        yield "the example", inputs.positional[0]
        return
    for index, tensor in enumerate(inputs.positional):
        yield f"the example's tensor {index}", tensor
    for name, tensor in inputs.named.items():
        yield f"the example's {name!r}", tensor


def _check_example(model: nn.Module, name: str, tensor: Any, inputs: Inputs) -> None:
    check_tensor(name, tensor, error=InputError)
    if not (tensor.is_floating_point() or tensor.dtype in INDEX_DTYPES) or tensor.dim() < 2:
        if tensor.is_floating_point() and inputs.only is not None and is_one_sample(model, tensor):
            raise InputError(f"the example: {missing_batch(tensor)}")
        raise InputError(
            f"{name} is a tensor of shape {tuple(tensor.shape)} and dtype {tensor.dtype}; expected a float "
            "tensor with batch: [N, channels, height, width], [N, channels, length] or [N, features], or the "
            "int64 indices of an embedding, [N, tokens]"
        )
    if not tensor.numel():
        raise InputError(f"{name} has shape {tuple(tensor.shape)}; expected at least one number")


def export(model: nn.Module, batch: Inputs, *, training: bool = False) -> torch.export.ExportedProgram:
    """The ATen calls of a model.

    Args:
        batch: its inputs, of 2 samples or more.
        training: in train mode, except batch norms and dropouts, which stay in evaluation mode.

    Raises:
        CaptureError: the model cannot be traced, or draws random numbers of Python or numpy.
    """
    mode = _train_mode if training else evaluation_mode
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in batch.tensors:
        shapes[tensor] = {0: torch.export.Dim.AUTO}
    try:
        before = _random_states()
        with (
            mode(model),
            torch.no_grad(),
            _without_fast_attention(),
            _torch_is_quiet(),
            plain_outputs(model),
            _in_forward(
                model,
                _SeparateDropouts(),
                _BatchFirstAttention(),
                RecurrentLayers(),
                ConstantNumbers(model, training=training),
            ),
        ):
            program = torch.export.export(model, batch.positional, dict(batch.named), dynamic_shapes=shapes)
    except TorchNanoError:
        raise
    except Exception as error:
        if isinstance(error, UnsupportedOperatorException):
            raise _without_stand_in(error) from error
        where = f"with {batch}{' in train mode' if training else ''}"
        if reason := _own_failure(model, batch):
            raise CaptureError(f"{type(model).__name__} fails {where}: {reason}") from error
        text = str(error).strip().split("\n\n")[0] or type(error).__name__
        raise CaptureError(f"torch.export cannot trace {type(model).__name__} {where}: {text}") from error
    if _random_states() != before:
        raise CaptureError(
            f"{type(model).__name__} draws numbers from Python's or numpy's random in "
            f"{'train' if training else 'evaluation'} mode, of which torch.export keeps those of one call; "
            "draw them with torch, or switch that off"
        )
    return program


def _without_stand_in(error: UnsupportedOperatorException) -> UnsupportedError:
    """The error for a call that torch.export cannot run without numbers."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    name = error.func._schema.name.removesuffix("_cachemask")
    reason = refusal(name)
    node = UnsupportedNode("", user_line(frames), name.replace("::", "."), reason.reason, reason.way_out)
    return UnsupportedError([node])


def _random_states() -> object:
    """States of the generators whose numbers torch.export would keep as constants."""
    _, keys, position, *_ = np.random.get_state(legacy=True)
    return random.getstate(), np.asarray(keys).tobytes(), position


def _own_failure(model: nn.Module, batch: Inputs) -> str:
    """The reason why the model cannot run on the batch even without torch.export; "" if it can."""
    backup = Backup(model)
    try:
        with evaluation_mode(model), torch.no_grad():
            batch.call(model)
    except Exception as error:
        with evaluation_mode(model), torch.no_grad():
            return explain(model, batch, error)
    finally:
        backup.restore()
    return ""


@contextmanager
def _train_mode(model: nn.Module) -> Iterator[None]:
    # Saves the modes and restores them.
    with evaluation_mode(model):
        set_mode(model, True)
        for module in model.modules():
            if has_two_modes(module):
                module.training = False
        yield


def has_two_modes(module: nn.Module) -> bool:
    """Whether it is torch's batch norm or dropout, whose modes training supports."""
    # A subclass may have a forward of its own.
    is_torch_s = (type(module).forward.__module__ or "").startswith("torch.nn.")
    return isinstance(module, _BatchNorm | _DropoutNd) and is_torch_s


@contextmanager
def _without_fast_attention() -> Iterator[None]:
    """Switches torch's fused kernels for transformer layers off: they are one call, of all their weights.

    These layers then need not find out whether a mask is causal either, for which they read its numbers.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with patch.object(
            transformer, "_detect_is_causal_mask", lambda mask, is_causal, size: bool(is_causal)
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _in_forward(model: nn.Module, *modes: TorchFunctionMode) -> Iterator[None]:
    """Inside, the model's forward runs in these modes, the last of which sees a call first.

    They are not active around it: torch.export reads attributes of tensors thousands of times, and each read
    would go through all modes.
    """
    active: list[ExitStack] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        active.append(ExitStack())
        for mode in modes:
            active[-1].enter_context(mode)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        active.pop().close()

    hooks = (
        model.register_forward_pre_hook(enter, prepend=True),
        model.register_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        # torch does not call hooks after Ctrl-C.
        while active:
            active.pop().close()


@contextmanager
def _torch_is_quiet() -> Iterator[None]:
    """Hides torch's own warnings and log messages while tracing; those of the user's code are shown."""
    # Many of torch's loggers have handlers of their own.
    loggers = [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "torch"
    ]
    handlers = [(handler, handler.level) for logger in loggers for handler in logger.handlers]
    with warnings.catch_warnings():
        # Some are attributed to their caller: this package, or a context manager.
        warnings.filterwarnings("ignore", module=r"torch\.|torch_nano\.|contextlib$")
        for handler, _ in handlers:
            handler.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for handler, level in handlers:
                handler.setLevel(level)


class _SeparateDropouts(TorchFunctionMode):
    """Gives every dropout an alias of its input.

    In evaluation mode a dropout returns its input, so that torch.export cannot distinguish readers of the
    tensor before and after the dropout.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DROPOUTS and not kwargs.get("inplace"):
            if args:
                args = (aten.alias(args[0]), *args[1:])
            else:
                kwargs["input"] = aten.alias(kwargs["input"])
        return function(*args, **kwargs)


class _BatchFirstAttention(TorchFunctionMode):
    """Computes attention modules with the batch apart from the heads, as the device does."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # A query of two dimensions has no batch.
        if function is F.multi_head_attention_forward and args[0].dim() == 3:
            function = multi_head_attention_forward
        return function(*args, **(kwargs or {}))


def target_name(node: fx.Node) -> str:
    """The name of a node's target."""
    return (
        str(node.target)
        if isinstance(node.target, torch._ops.OpOverload)
        else getattr(node.target, "__name__", str(node.target))
    )


def module_path(node: fx.Node) -> str:
    """Dotted path of the module that makes a call; "" for the model itself."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    # The second and later calls of one module are marked "@1", "@2".
    return re.sub(r"@\d+", "", path)


def source_line(node: fx.Node) -> str:
    """ "file:line" of the user's code that makes a call."""
    frames = re.findall(r'File "(.+?)", line (\d+)', node.meta.get("stack_trace") or "")
    return user_line([(file, int(line)) for file, line in frames])
