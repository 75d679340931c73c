"""Domain adaptation of batch norms: re-estimates their statistics on other data (AdaBN)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError, NonFiniteError
from ..modules.explain import run
from ..modules.models import check_not_scripted, check_numbers, own_module
from ..modules.modes import evaluation_mode
from ..training.data import UnlabelledData, inputs_of


def reestimate_batch_norm(model: nn.Module, data: UnlabelledData, *, batch_size: int = 64) -> list[str]:
    """Replaces the batch norm statistics of a model by those of other data, exactly.

    After that, every running mean and variance is that of its batch norm's input over all the data, with the
    model in evaluation mode: in forward order, so each batch norm sees the new statistics of those before it
    (AdaBN: Li et al. 2016, "Revisiting Batch Normalization For Practical Domain Adaptation"). The variance is
    unbiased, as torch's. Frozen batch norms are included: freezing protects statistics from training only.

    It takes one pass over the data per batch norm, each up to that one. Labels are ignored.

    Args:
        data: a tensor [N, ...], or training data as for :func:`~torch_nano.fit`; it should be typical.
        batch_size: of tensors and datasets.

    Returns:
        The names of the batch norms, in forward order. One that the model does not call keeps its statistics.

    Raises:
        InputError: the model has, or calls, no batch norm with statistics, calls one twice, or cannot take
            the data; or there are too few samples.
        NonFiniteError: a statistic is NaN or infinite. In both cases the model is unchanged.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    >>> reestimate_batch_norm(model, torch.tensor([[1.0, 4.0], [3.0, 8.0]]))
    ['0']
    >>> model[0].running_mean, model[0].running_var
    (tensor([2., 6.]), tensor([2., 8.]))
    """
    model = own_module(model)
    check_numbers(model)
    check_not_scripted(model.named_modules())
    norms: dict[str, _BatchNorm] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        raise InputError(
            f"{type(model).__name__} has no batch norm with running statistics; expected at least one"
        )
    batches = inputs_of(data, batch_size)
    with evaluation_mode(model), torch.no_grad():
        order = _calls(model, norms, batches)
        before = [(buffer, buffer.clone()) for name in order for buffer in _statistics(norms[name])]
        try:
            for name in order:
                _reestimate(model, name, norms[name], batches)
        except Exception:
            for buffer, value in before:
                buffer.copy_(value)
            raise
    return order


def _calls(model: nn.Module, norms: dict[str, _BatchNorm], batches: Iterable[Tensor]) -> list[str]:
    """The names of the batch norms in the order in which the model calls them."""
    order: list[str] = []
    place = _statistics(next(iter(norms.values())))[0].device
    with ExitStack() as hooks:
        for name, norm in norms.items():
            hooks.enter_context(norm.register_forward_pre_hook(lambda *_, name=name: order.append(name)))
        for x in batches:
            run(model, x.to(place), "batch 0 of the data")
            break
        else:
            raise InputError("the data have no batches; expected at least one")
    if not order:
        raise InputError(
            f"{type(model).__name__} calls none of its batch norms: it folds them (a QatModule does), so "
            "re-estimate the float model before"
        )
    for name in order:
        if order.count(name) > 1:
            raise InputError(
                f"the model calls {name!r} {order.count(name)} times, and what it gets the second time "
                "depends on its statistics the first time; give each place a batch norm of its own"
            )
    return order


class _Left(BaseException):
    """Ends a forward at the batch norm in question; a BaseException, so that models do not catch it."""


def _reestimate(model: nn.Module, name: str, norm: _BatchNorm, batches: Iterable[Tensor]) -> None:
    """Sets a batch norm's statistics to those of its inputs, merged batch by batch in float64 (Chan et al.
    1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances").
    """
    count, number = 0, 0
    place = _statistics(norm)[0].device
    mean = squares = torch.zeros(norm.num_features, dtype=torch.float64, device=place)

    def merge(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal count, mean, squares
        per_channel = arguments[0].transpose(0, 1).flatten(1).double()
        own_count, own_mean = per_channel.shape[1], per_channel.mean(1)
        own_squares = (per_channel - own_mean[:, None]).square().sum(1)
        change = own_mean - mean
        total = count + own_count
        squares = squares + own_squares + change.square() * (count * own_count / total)
        mean = mean + change * (own_count / total)
        count = total
        raise _Left

    with norm.register_forward_pre_hook(merge):
        for index, x in enumerate(batches):
            try:
                run(model, x.to(place), f"batch {index} of the data")
            except _Left:
                number += 1
    if count < 2:
        raise InputError(f"{name!r} gets one number per channel from the data; a variance needs at least 2")
    variance = squares / (count - 1)
    if not (mean.isfinite().all() and variance.isfinite().all()):
        raise NonFiniteError(f"batch norm {name!r} gets NaN or infinity; its statistics would be, too")
    for buffer, value in zip(_statistics(norm), (mean, variance, torch.tensor(number)), strict=True):
        buffer.copy_(value)


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    """The buffers of mean, variance and number of batches."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean, norm.running_var, norm.num_batches_tracked
