"""Records the outputs of a model's modules while it runs, by hooks that are removed at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import InputError, ModuleNameError
from .models import QuantizedModule


@contextmanager
def recorded_outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Stores the output of every call of a module inside in the dictionary, under the module's name."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(_record, outputs, name)))
        yield outputs


def _record(outputs: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    # A copy: a later in-place operation would change the output itself.
    outputs[name] = first_tensor(output, name).clone()


def first_tensor(output: Any, name: str) -> Tensor:
    """A module's output, or the first element of a tuple.

    Raises:
        InputError: that is not a tensor.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        raise InputError(
            f"{name!r} gives a {type(output).__name__}; expected a tensor, or a tuple that begins with one"
        )
    return first


def not_called(model: nn.Module, name: str) -> ModuleNameError:
    """The error for a module that a forward does not call."""
    if isinstance(model, QuantizedModule):
        return ModuleNameError(
            f"the outputs of {name!r} cannot be had from a {type(model).__name__}, which runs in "
            "integers without calling modules: do this with the float model, before prepare_qat or to_nano"
        )
    return ModuleNameError(
        f"{type(model).__name__} has a module {name!r} but does not call it for this input, so it has no "
        "output; name one that the forward calls"
    )
