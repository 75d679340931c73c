"""An example of a model's inputs, taken from data."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..arguments import as_tensors, shown
from ..data.forms import is_group, labels_of
from ..errors import InputError
from .batches import CalibrationData

#: Samples of an example: with one, a dimension of size 1 could be mistaken for the batch's.
_SAMPLES = 2


def example_of(model: nn.Module, data: CalibrationData) -> Any:
    """The inputs of the first samples of data, in its order or by its names; labels are left out.

    Args:
        model: its forward says how many inputs it takes.
        data: as for `calibrate` of :func:`torch_nano.to_nano`.

    Raises:
        InputError: the data is empty, an iterator, which can be read once, or has no inputs for this model.

    >>> import torch
    >>> [tuple(x.shape) for x in (example_of(nn.Linear(4, 3), (torch.ones(9, 4), torch.zeros(9))),)]
    [(2, 4)]
    """
    required, names = _parameters(model)
    part = as_tensors(_first(as_tensors(data)))
    if isinstance(part, tuple | list) and len(part) > 1 and is_group(part[0]):
        part = part[0]
    if isinstance(part, Tensor):
        return part[:_SAMPLES]
    found: dict[str, Any] | list[Any] = []
    if isinstance(part, Mapping):
        found = {name: part[name] for name in names if name in part}
    elif isinstance(part, tuple | list):
        found = list(part[:required])
    tensors = list(found.values()) if isinstance(found, dict) else found
    if len(tensors) < required or not all(isinstance(one, Tensor) and one.dim() for one in tensors):
        raise InputError(
            f"the data begins with {shown(part)}, which has no inputs for {type(model).__name__}, whose "
            f"forward takes {', '.join(names)}; expected tensors, (x, y), or a dict of them by name"
        )
    if isinstance(found, dict):
        return {name: one[:_SAMPLES] for name, one in found.items()}
    return found[0][:_SAMPLES] if len(found) == 1 else tuple(one[:_SAMPLES] for one in found)


def _first(data: Any) -> Any:
    """The first batch, or all of the data if it is one."""
    if isinstance(data, Tensor | Mapping) or (
        isinstance(data, tuple)
        and len(data) > 0
        and all(isinstance(one, Tensor) or is_group(one) or labels_of(one) is not None for one in data)
    ):
        return data
    if isinstance(data, Iterator):
        raise InputError(
            f"the data is {shown(data)}, which can be read only once; give an example= beside it, or a list"
        )
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=_SAMPLES)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise InputError(f"the data is {shown(data)}; expected a tensor or an iterable of batches")
    for batch in data:
        return batch
    raise InputError("the data is empty; expected at least one batch")


def _parameters(model: nn.Module) -> tuple[int, list[str]]:
    """How many arguments a model's forward needs, at least one, and the names of all."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [one for one in inspect.signature(model.forward).parameters.values() if one.kind in kinds]
    required = sum(one.default is inspect.Parameter.empty for one in taken)
    return max(1, required), [one.name for one in taken]
