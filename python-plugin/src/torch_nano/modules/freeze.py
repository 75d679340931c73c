"""Freezing of parts of a model: weights, batch norm statistics and dropout."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import FreezeError
from .models import check_changeable, check_not_scripted, own_module
from .names import matching_modules

#: A frozen module keeps the handle of its forward pre-hook in this attribute.
_HANDLE = "_torch_nano_frozen"


def freeze(model: nn.Module, *patterns: str | nn.Module) -> None:
    """Freezes the modules that the patterns match, with everything inside them; without a pattern the whole
    model.

    A frozen module's parameters do not require gradients, and it runs in evaluation mode whatever
    `model.train()` says: its batch norm statistics do not change and its dropout is off. That survives
    deepcopy, pickle and load_state_dict.

    Args:
        patterns: globs over `model.named_modules()`, where "features.*" matches "features" itself too; or
            modules of the model.

    Raises:
        ModuleNameError: a pattern matches nothing. The model is then unchanged.
        FreezeError: a parameter is shared with a module that is not frozen. The model is then unchanged.
        InputError: not an nn.Module, or one with lazy or TorchScript modules. The model is then unchanged.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze(model, "0")
    >>> frozen(model), [parameter.requires_grad for parameter in model.parameters()]
    (['0'], [False, False, True, True])
    """
    model = _freezable(model)
    closed = {part for module in matching_modules(model, patterns or (model,)) for part in module.modules()}
    for name, sharing in _shared_parameters(model, closed).items():
        if open_ones := [
            other for other, module in sharing if module not in closed and not is_frozen(module)
        ]:
            raise FreezeError(
                f"{name!r} is also {' and '.join(map(repr, open_ones))}, whose module would not be frozen: "
                "one parameter cannot be both. Freeze both modules, or neither"
            )
    for module in closed:
        _close(module)
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
            # An optimizer would go on applying an old gradient.
            parameter.grad = None


def unfreeze(model: nn.Module, *patterns: str | nn.Module) -> None:
    """Unfreezes the modules that the patterns match, with everything inside them; without a pattern the whole
    model.

    A module inside a frozen one may be unfrozen: the modules that contain it are then unfrozen, too, and its
    siblings stay frozen. Unfrozen modules get the model's mode: call `model.train()` before training.

    Raises:
        ModuleNameError: a pattern matches nothing. The model is then unchanged.
        FreezeError: a parameter is shared with a module that stays frozen. The model is then unchanged.
        InputError: not an nn.Module, or one with lazy or TorchScript modules. The model is then unchanged.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze(model)
    >>> unfreeze(model, "1")
    >>> frozen(model), [parameter.requires_grad for parameter in model.parameters()]
    (['0'], [False, False, True, True])
    """
    model = _freezable(model)
    opened = {part for module in matching_modules(model, patterns or (model,)) for part in module.modules()}
    # A module that contains an unfrozen one must no longer run in evaluation mode as a whole.
    around = {module for module in model.modules() if not opened.isdisjoint(module.modules())}
    for name, sharing in _shared_parameters(model, opened).items():
        staying = [other for other, module in sharing if is_frozen(module) and module not in opened | around]
        if staying:
            raise FreezeError(
                f"{name!r} is also {' and '.join(map(repr, staying))}, whose module would stay frozen: one "
                "parameter cannot be both. Unfreeze both modules, or neither"
            )
    for module in opened | around:
        _open(module, model.training)
    for module in opened:
        for parameter in module.parameters(recurse=False):
            # torch has no gradients of integers.
            if parameter.is_floating_point() or parameter.is_complex():
                parameter.requires_grad_(True)


def frozen(model: nn.Module) -> list[str]:
    """The names of all frozen modules in the order of `model.named_modules()`; "" is the model itself.

    >>> model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Linear(3, 2))
    >>> freeze(model, "0.*")
    >>> frozen(model)
    ['0', '0.0']
    """
    return [name for name, module in own_module(model).named_modules() if is_frozen(module)]


def is_frozen(module: nn.Module) -> bool:
    """Whether this module itself is frozen.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> freeze(model, "0")
    >>> is_frozen(model), is_frozen(model[0])
    (False, True)
    """
    return _HANDLE in module.__dict__


def set_frozen(model: nn.Module, names: Collection[str], trainable: Collection[str]) -> None:
    """Sets the frozen modules and the parameters that require gradients to exactly these, for resuming and
    restoring.
    """
    for name, module in model.named_modules():
        if name in names:
            _close(module)
        else:
            _open(module, model.training)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


@contextmanager
def training_only(model: nn.Module, *patterns: str | nn.Module) -> Iterator[None]:
    """Freezes all modules except those that the patterns match. After an exception inside, the same modules
    are frozen as before.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> with training_only(model, "1"):
    ...     pass
    >>> frozen(model)
    ['0']
    """
    model = _freezable(model)
    before = frozen(model), [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    modes = [(module, module.training, is_frozen(module)) for module in model.modules()]
    training = model.training
    try:
        freeze(model)
        unfreeze(model, *patterns)
        for module, mode, was_frozen in modes:
            if not is_frozen(module):
                module.training = training if was_frozen else mode
        yield
    except Exception:
        set_frozen(model, *before)
        for module, mode, _ in modes:
            module.training = mode
        raise


def _freezable(model: nn.Module) -> nn.Module:
    """The module inside the wrappers, checked: its parameters and hooks can be set."""
    model = own_module(model)
    check_changeable(model)
    check_not_scripted(model.named_modules())
    return model


def _close(module: nn.Module) -> None:
    if not is_frozen(module):
        # Before other hooks, which may depend on the mode, as that of spectral_norm.
        module.__dict__[_HANDLE] = module.register_forward_pre_hook(_stay_in_evaluation, prepend=True)
    module.training = False


def _open(module: nn.Module, training: bool) -> None:
    handle = module.__dict__.pop(_HANDLE, None)
    if handle is not None:
        handle.remove()
        module.training = training


def _shared_parameters(model: nn.Module, changed: set[nn.Module]) -> dict[str, list[tuple[str, nn.Module]]]:
    """The parameters that changed modules share with other modules: name -> the others' names and modules."""
    owners: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            owners.setdefault(parameter, []).append((name, module))
    shared = {}
    for sharing in owners.values():
        for name, module in sharing:
            if module in changed and len(sharing) > 1:
                shared[name] = [(other, owner) for other, owner in sharing if owner is not module]
    return shared


def _stay_in_evaluation(module: nn.Module, arguments: Any) -> None:
    """The forward pre-hook of a frozen module: `model.train()` may have changed its mode."""
    if module.training:
        module.training = False
