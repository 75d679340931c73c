"""Optimizers with a learning rate per part of the model, and checks that optimizer and model fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..arguments import mapping
from ..errors import FitError, FreezeError
from ..modules.freeze import is_frozen
from ..modules.models import own_module
from ..modules.names import matching_parameters
from .history import is_higher_better

#: A scheduler, or a callable that makes one for an optimizer.
Scheduler: TypeAlias = LRScheduler | Callable[[Optimizer], LRScheduler]

LEARNING_RATE = 1e-3


def make_optimizer(
    model: nn.Module,
    *,
    learning_rate: float = LEARNING_RATE,
    learning_rates: Mapping[str, float] | None = None,
) -> AdamW:
    """An AdamW over all parameters of the model, in named groups.

    It includes frozen parameters, which the optimizer skips as they have no gradient, and which it trains as
    soon as they are unfrozen.

    Args:
        learning_rate: of all parameters that no glob of `learning_rates` matches.
        learning_rates: glob over names of parameters or modules -> learning rate. A parameter belongs to the
            first glob that matches, whose name the group has. The group of the rest is called "other".

    Raises:
        ModuleNameError: a glob matches nothing.
        FitError: a learning rate is not positive, or nothing is left for a glob.
        FreezeError: the model has no parameters.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> optimizer = make_optimizer(model, learning_rates={"1": 0.1})
    >>> [(group["name"], group["lr"], len(group["params"])) for group in optimizer.param_groups]
    [('1', 0.1, 2), ('other', 0.001, 2)]
    """
    model = own_module(model)
    rest = {
        parameter: name
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() or parameter.is_complex()
    }
    groups: list[dict[str, Any]] = []
    for glob, rate in rates_of(learning_rates).items():
        _check_rate(f"learning_rates[{glob!r}]", rate)
        matched = matching_parameters(model, glob).values()
        own = [parameter for parameter in dict.fromkeys(matched) if rest.pop(parameter, None) is not None]
        if not own:
            raise FitError(
                f"learning_rates: {glob!r} comes after globs that match all it matches; the first one "
                "counts, so give the narrower glob first"
            )
        groups.append({"params": own, "lr": rate, "name": glob})
    _check_rate("learning_rate", learning_rate)
    if not rest and not groups:
        raise FreezeError(f"{type(model).__name__} has no parameters, so there is nothing to train")
    if rest:
        groups.append({"params": list(rest), "lr": learning_rate, "name": "other" if groups else "all"})
    return AdamW(groups)


def check_trainable(model: nn.Module) -> None:
    """Raises a FreezeError if no parameter can be trained, or a frozen module has parameters that require
    gradients.
    """
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if is_frozen(module) and parameter.requires_grad:
                raise FreezeError(
                    f"{name!r} requires gradients, but its module {path!r} is frozen; expected only one of "
                    f"both: tn.unfreeze(model, {path!r}), or leave requires_grad to tn.freeze"
                )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise FreezeError(
            f"no parameter of {type(model).__name__} requires gradients, so there is nothing to train; "
            "tn.unfreeze(model, ...) the part that is to learn"
        )


def check_groups(model: nn.Module, learning_rates: Mapping[str, float]) -> None:
    """Raises a FitError if a glob of learning rates matches frozen parameters only."""
    for glob in rates_of(learning_rates):
        if not any(parameter.requires_grad for parameter in matching_parameters(model, glob).values()):
            raise FitError(
                f"learning_rates: all that {glob!r} matches is frozen, so its rate would have no effect; "
                f"tn.unfreeze(model, ...) it, or leave {glob!r} out"
            )


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """Raises a FreezeError unless the optimizer has all parameters of the model that require gradients."""
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    if held.isdisjoint(named.values()):
        raise FreezeError(
            f"the optimizer has no parameter of this {type(model).__name__}; expected those of the very "
            "model that is trained (a deepcopy or prepare_qat has parameters of its own): make the "
            "optimizer from them"
        )
    if not any(parameter.requires_grad for parameter in held):
        raise FreezeError(
            "all parameters that the optimizer has are frozen, so it would train nothing; "
            "tn.unfreeze(model, ...) them, or make it from those that require gradients"
        )
    missing = [name for name, parameter in named.items() if parameter.requires_grad and parameter not in held]
    if missing:
        shown = ", ".join(map(repr, missing[:4])) + (
            f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        )
        raise FreezeError(
            f"{shown} require{'s' * (len(missing) == 1)} gradients, but the optimizer does not have "
            f"{'it' if len(missing) == 1 else 'them'}: tn.freeze(model, ...) what is not to be trained, or "
            "add it by optimizer.add_param_group"
        )


def make_scheduler(scheduler: Scheduler | None, optimizer: Optimizer, monitor: str) -> LRScheduler | None:
    """The scheduler, made from the optimizer if it is a callable.

    Raises:
        FitError: it is not a scheduler, is another optimizer's, or its mode does not fit the metric.
    """
    if scheduler is None:
        return None
    if not isinstance(scheduler, LRScheduler):
        if not callable(scheduler):
            raise FitError(
                f"scheduler is a {type(scheduler).__name__}; expected an LRScheduler, or a callable that "
                "makes one of the optimizer"
            )
        scheduler = scheduler(optimizer)
        if not isinstance(scheduler, LRScheduler):
            raise FitError(f"scheduler made a {type(scheduler).__name__}; expected an LRScheduler")
    if scheduler.optimizer is not optimizer:
        raise FitError(
            "the scheduler is another optimizer's; give fit that optimizer too, or for scheduler a "
            "callable that makes it of the optimizer: lambda optimizer: StepLR(optimizer, 3)"
        )
    if isinstance(scheduler, ReduceLROnPlateau) and (scheduler.mode == "max") != is_higher_better(monitor):
        better = "higher" if is_higher_better(monitor) else "lower"
        raise FitError(
            f"ReduceLROnPlateau has mode={scheduler.mode!r}, but gets {monitor}, which is better when "
            f"{better}; give it mode={'max' if better == 'higher' else 'min'!r}, or early_stopping another "
            "monitor"
        )
    return scheduler


def learning_rates_of(optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each group with trainable parameters, by the group's name, or its number."""
    rates = {}
    for index, group in enumerate(optimizer.param_groups):
        name = group.get("name", "all" if len(optimizer.param_groups) == 1 else f"group {index}")
        if any(parameter.requires_grad for parameter in group["params"]):
            rates[name if name not in rates else f"{name} ({index})"] = float(group["lr"])
    return rates


def rates_of(learning_rates: object) -> dict[Any, Any]:
    """The learning rate of each glob; raises a FitError for anything but a mapping."""
    return mapping("learning_rates", learning_rates, 'a rate for each name: {"2": 1e-3}', error=FitError)


def _check_rate(name: str, rate: float) -> None:
    if not isinstance(rate, (int, float)) or not math.isfinite(rate) or rate <= 0:
        raise FitError(
            f"{name}={rate!r}; expected a positive number (tn.freeze is for what is not to be trained)"
        )
