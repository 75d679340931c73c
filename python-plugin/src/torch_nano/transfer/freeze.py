"""Freezing parts of a model for good: weights, batch norm statistics and dropout."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..errors import ModuleNameError

#: A frozen module keeps the handle of its forward pre-hook in this attribute.
_HANDLE = "_torch_nano_frozen"


def freeze(model: nn.Module, *patterns: str) -> None:
    """Freezes the modules whose names match, with all that is inside them; without a pattern the whole model.

    A frozen module's parameters do not require gradients, and it runs in evaluation mode whatever
    `model.train()` says: its batch norm statistics stay and its dropout is off. That survives deepcopy and
    pickle.

    Args:
        patterns: globs over `model.named_modules()`; "features.*" matches "features" itself too.

    Raises:
        ModuleNameError: a pattern matches nothing. The model is then unchanged.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze(model, "0")
    >>> frozen(model), [parameter.requires_grad for parameter in model.parameters()]
    (['0'], [False, False, True, True])
    """
    for module in _matches(model, patterns):
        for part in module.modules():
            if _HANDLE not in part.__dict__:
                part.__dict__[_HANDLE] = part.register_forward_pre_hook(_stay_in_evaluation)
            part.training = False
        module.requires_grad_(False)


def unfreeze(model: nn.Module, *patterns: str) -> None:
    """Undoes :func:`freeze` for the modules whose names match, with all that is inside them; without a
    pattern everywhere.

    The modules take the model's mode: `model.train()` as usual before training goes on.

    Raises:
        ModuleNameError: a pattern matches nothing. The model is then unchanged.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze(model)
    >>> unfreeze(model, "1")
    >>> frozen(model), [parameter.requires_grad for parameter in model.parameters()]
    (['0'], [False, False, True, True])
    """
    opened = {part for module in _matches(model, patterns) for part in module.modules()}
    # A module around an opened one must not run in evaluation mode as a whole any more.
    around = {module for module in model.modules() if not opened.isdisjoint(module.modules())}
    for module in opened | around:
        handle = module.__dict__.pop(_HANDLE, None)
        if handle is not None:
            handle.remove()
            module.training = model.training
    for module in opened:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


def frozen(model: nn.Module) -> list[str]:
    """The names of all frozen modules in the order of `model.named_modules()`; "" is the model itself.

    >>> model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Linear(3, 2))
    >>> freeze(model, "0.*")
    >>> frozen(model)
    ['0', '0.0']
    """
    return [name for name, module in model.named_modules() if _HANDLE in module.__dict__]


def _matches(model: nn.Module, patterns: tuple[str, ...]) -> list[nn.Module]:
    """The modules that any pattern matches; every pattern must match one."""
    named = dict(model.named_modules(remove_duplicate=False))
    matches = []
    for pattern in patterns or ("*",):
        if not isinstance(pattern, str):
            raise ModuleNameError(f"a pattern is {pattern!r}; expected names or globs, each a str of its own")
        found = [
            module
            for name, module in named.items()
            if fnmatchcase(name, pattern) or name == pattern.removesuffix(".*")
        ]
        if not found:
            raise _no_match(model, pattern)
        matches += found
    return matches


def module_named(model: nn.Module, name: str) -> nn.Module:
    """The one module of that name, "" for the model itself.

    Raises:
        ModuleNameError: there is none; the message lists similar names.
    """
    named: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if not isinstance(name, str):
        raise ModuleNameError(f"a module's name is {name!r}; expected a str as model.named_modules() has it")
    if name not in named:
        raise _no_match(model, name)
    return named[name]


def _no_match(model: nn.Module, pattern: str) -> ModuleNameError:
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    near = difflib.get_close_matches(pattern.removesuffix(".*"), filter(None, names), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"it has {', '.join(map(repr, names))}"
    return ModuleNameError(f"no module of {type(model).__name__} matches {pattern!r}; {hint}")


def _stay_in_evaluation(module: nn.Module, arguments: Any) -> None:
    """The forward pre-hook of a frozen module: `model.train()` may have changed its mode."""
    if module.training:
        module.training = False
