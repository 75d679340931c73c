"""What modules of a model get and give while it runs; nothing stays on the model."""

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
    """Inside, every call of a module stores its output in the dictionary, under the module's name."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(_record, outputs, name)))
        yield outputs


def _record(outputs: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    # A copy: an in-place operation behind the module would change the output itself.
    outputs[name] = first_tensor(output, name).clone()


def first_tensor(output: Any, name: str) -> Tensor:
    """What a module gives, or the first of what it gives.

    Raises:
        InputError: that is no tensor.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        raise InputError(
            f"{name!r} gives a {type(output).__name__}; expected a tensor, or a tuple that begins with one"
        )
    return first


def not_called(model: nn.Module, name: str) -> ModuleNameError:
    """The error for a module that a forward does not come to."""
    if isinstance(model, QuantizedModule):
        return ModuleNameError(
            f"the outputs of {name!r} cannot be had from a {type(model).__name__}, which runs in "
            "integers without calling modules: do this with the float model, before prepare_qat or to_nano"
        )
    return ModuleNameError(
        f"{type(model).__name__} has a module {name!r} but does not call it for this input, so it has no "
        "output; name one that the forward calls"
    )
