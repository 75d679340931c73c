"""Name patterns (globs) of modules and parameters, as in freeze, unfreeze and learning_rates."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..arguments import items
from ..errors import ModuleNameError
from .models import check_not_scripted, own_module


def matching_modules(model: nn.Module, patterns: Sequence[str | nn.Module]) -> list[nn.Module]:
    """The modules that any pattern matches, without those inside them.

    Args:
        patterns: globs over `model.named_modules()`, where "features.*" matches "features" itself too, or
            modules of the model. Every one must match something.

    Raises:
        ModuleNameError: a pattern matches nothing; the message lists similar names.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> matching_modules(model, ["1", model[0]])
    [ReLU(), Linear(in_features=4, out_features=3, bias=True)]
    """
    model = own_module(model)
    named = dict(model.named_modules(remove_duplicate=False))
    matches: list[nn.Module] = []
    for pattern in patterns:
        if isinstance(pattern, nn.Module):
            pattern = own_module(pattern)
            if all(pattern is not module for module in named.values()):
                raise ModuleNameError(
                    f"a {type(pattern).__name__} was given that is not part of {type(model).__name__}; "
                    "expected one of its own modules (a copy of the model has modules of its own)"
                )
            matches.append(pattern)
            continue
        if not isinstance(pattern, str):
            raise ModuleNameError(
                f"a pattern is {pattern!r}; expected names or globs, each a str of its own, or modules"
            )
        found = [module for name, module in named.items() if _matches(name, pattern)]
        if not found:
            raise ModuleNameError(
                f"no module of {type(model).__name__} matches {pattern!r}; {near(pattern, named)}"
            )
        matches += found
    return matches


def matching_parameters(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters that a glob matches, by their own name or by that of a module that contains them.

    Raises:
        ModuleNameError: the pattern matches nothing; the message lists similar names.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> list(matching_parameters(model, "0")), list(matching_parameters(model, "*.bias"))
    (['0.weight', '0.bias'], ['0.bias', '1.bias'])
    """
    model = own_module(model)
    if not isinstance(pattern, str):
        raise ModuleNameError(f"a pattern is {pattern!r}; expected a name or glob, a str")
    named = dict(model.named_parameters(remove_duplicate=False))
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if _matches(name, pattern)]
    found = {
        name: parameter
        for name, parameter in named.items()
        if fnmatchcase(name, pattern)
        or any(not module or name.startswith(f"{module}.") for module in modules)
    }
    if not found:
        names = [*named, *(name for name, _ in model.named_modules())]
        raise ModuleNameError(
            f"no parameter of {type(model).__name__} matches {pattern!r}; {near(pattern, names)}"
        )
    return found


def module_named(model: nn.Module, name: str) -> nn.Module:
    """The one module of that name, "" for the model itself.

    Raises:
        ModuleNameError: there is no such module; the message lists similar names.
        InputError: it is a TorchScript module.

    >>> module_named(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "1")
    ReLU()
    """
    model = own_module(model)
    named: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if not isinstance(name, str):
        raise ModuleNameError(f"a module's name is {name!r}; expected a str as model.named_modules() has it")
    if name not in named:
        raise ModuleNameError(f"{type(model).__name__} has no module {name!r}; {near(name, named)}")
    check_not_scripted([(name, named[name])])
    return named[name]


def names_in(argument: str, given: object) -> list[Any]:
    """The items of a list of names, which are not looked up yet.

    >>> names_in("layer_names", "0")
    Traceback (most recent call last):
    torch_nano.errors.ModuleNameError: layer_names is '0'; expected a list of names: ['0']

    Raises:
        ModuleNameError: it is not a list.
    """
    way_out = f": [{given!r}]" if isinstance(given, str) else ""
    return items(argument, given, f"a list of names{way_out}", error=ModuleNameError)


def near(pattern: str, names: Iterable[str]) -> str:
    """The end of a message about a name that does not exist: similar ones, or all."""
    names = [name for name in names if name]
    similar = difflib.get_close_matches(pattern.removesuffix(".*"), names, n=3, cutoff=0.4)
    if similar:
        return f"did you mean {', '.join(map(repr, similar))}?"
    return f"it has {', '.join(map(repr, names))}" if names else "it has none"


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name == pattern.removesuffix(".*")
