"""Hooks around the calls of a model's modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def watching(
    model: nn.Module,
    *,
    before: Callable[[str, nn.Module, tuple[Any, ...]], None],
    after: Callable[[str, nn.Module, Any], None],
) -> Iterator[None]:
    """Calls `before(name, module, arguments)` and `after(name, module, output)` around each module's call;
    the hooks are removed at the end.
    """
    handles = []
    try:
        for name, module in model.named_modules():

            def enter(module: nn.Module, arguments: tuple[Any, ...], name: str = name) -> None:
                before(name, module, arguments)

            def leave(module: nn.Module, arguments: Any, output: Any, name: str = name) -> None:
                after(name, module, output)

            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in tuples, lists and dicts of tensors."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def describe(name: str, module: nn.Module) -> str:
    """A module by name and class, for messages."""
    return f"{name!r} ({type(module).__name__})" if name else f"{type(module).__name__} itself"
