"""Train and evaluation mode of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..errors import InputError


def set_mode(model: nn.Module, training: bool) -> None:
    """`model.train(training)`.

    Raises:
        InputError: the model has only one mode, as torch.export's modules.
    """
    try:
        model.train(training)
    except NotImplementedError as error:
        raise InputError(
            f"the model, a {type(model).__name__}, cannot change between train and evaluation mode "
            f"({error}); give the nn.Module that it was made from"
        ) from error


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts all modules into evaluation mode inside, and restores each module's mode at the end.

    Raises:
        InputError: the model has only one mode.

    >>> model = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
    >>> with evaluation_mode(model):
    ...     [module.training for module in model.modules()]
    [False, False, False]
    >>> [module.training for module in model.modules()]
    [True, True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        set_mode(model, False)
        yield
    finally:
        for module, training in modes:
            module.training = training
