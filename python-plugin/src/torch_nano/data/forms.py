"""The forms that data may have, as batches of a model's inputs with their labels.

Data are

- a tensor or an array: inputs alone;
- a pair (x, y) of inputs and labels; for a model of several inputs (a, b, y), ((a, b), y) or ({"a": a}, y);
- a dict of a model's inputs by name, with the labels under one of :data:`LABEL_KEYS`;
- a dataset of such samples, or a DataLoader or another iterable of such batches.

Labels are indices of classes, or names of classes: a tensor, an array, a list or a tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import TensorOrArray, as_tensors, class_index
from ..errors import InputError, LabelError

#: Data in any of the forms above.
Data: TypeAlias = (
    TensorOrArray | Mapping[str, TensorOrArray | Sequence[int | str]] | Dataset[Any] | Iterable[Any]
)

#: Keys of a dict under which its labels are, unless an input has that name.
LABEL_KEYS = ("label", "labels", "y", "target", "targets")

#: Labels of a batch: a tensor [N, ...], or the names of classes.
Labels: TypeAlias = Tensor | list[str]


def labels_of(value: object) -> Labels | None:
    """A batch's labels as a tensor, or as a list of names; None if they are neither.

    >>> labels_of(["walk", "run"]), labels_of(np.array(["walk"])), labels_of((2, 0)), labels_of(3)
    (['walk', 'run'], ['walk'], tensor([2, 0]), None)
    """
    value = as_tensors(value)
    if isinstance(value, Tensor):
        return value if value.dim() else None
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(one, str) for one in value):
        return [str(one) for one in value]
    scalars = [one.item() if isinstance(one, Tensor | np.generic) and one.ndim == 0 else one for one in value]
    if all(isinstance(one, int | float) for one in scalars):
        return torch.tensor(scalars)
    return None


def indices_of(labels: Labels, names: Sequence[str], classes: int, where: str) -> Tensor:
    """Labels as int64 indices [N, ...].

    Args:
        names: of the classes.
        where: what has the labels, for the message.

    Raises:
        InputError: they are not indices or names of classes.

    >>> indices_of(["run", "walk"], ["walk", "run"], 2, "the data").tolist()
    [1, 0]
    """
    if isinstance(labels, list):
        if not any(names):
            raise InputError(
                f"the labels of {where} are names, and the classes have none here; expected indices (a "
                "converted model knows names: to_nano(..., labels=[...]))"
            )
        try:
            indices = {name: class_index(name, classes, names) for name in set(labels)}
        except LabelError as error:
            raise InputError(f"the labels of {where}: {error}") from error
        return torch.tensor([indices[name] for name in labels])
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"the labels of {where} have dtype {labels.dtype}; expected classes, as integers or by name"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"the labels of {where} go from {int(labels.min())} to {int(labels.max())}; expected classes "
            f"from 0 to {classes - 1}"
        )
    return labels.long()


def batches(data: Any, purpose: str, batch_size: int, is_one_batch: bool) -> Iterable[Any]:
    """The batches of data.

    Args:
        data: with its arrays as tensors (:func:`.arguments.as_tensors`).
        purpose: for the message.
        batch_size: of datasets.
        is_one_batch: whether a tuple is one batch, see :func:`is_one_batch`.

    Raises:
        InputError: the data has none of the forms.
    """
    if isinstance(data, Tensor | Mapping) or is_one_batch:
        return [data]
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return data
    raise InputError(
        f"{purpose} data is a {type(data).__name__}; expected a tensor or an iterable of batches"
    )


def inputs_and_labels(names: Sequence[str], part: Any, purpose: str) -> tuple[list[Tensor], Labels | None]:
    """The model's inputs in one batch, and its labels.

    Args:
        names: of the model's inputs, in order.
        part: the batch, with its arrays as tensors.
        purpose: for the message.

    Raises:
        InputError: an input is missing.
    """
    found: list[Any] = []
    rest: Sequence[Any] = ()
    if isinstance(part, tuple | list) and len(part) > 1 and is_group(part[0]):
        part, rest = part[0], part[1:]
    if isinstance(part, Mapping):
        missing = [name for name in names if name not in part]
        if missing:
            raise InputError(
                f"a {purpose} batch is a dict of {', '.join(map(str, part))}; it lacks {missing[0]!r}, an "
                "input of the model"
            )
        found = [as_tensors(part[name]) for name in names]
        rest = rest or [part[key] for key in LABEL_KEYS if key in part and key not in names]
    elif isinstance(part, Tensor):
        found = [part]
    elif isinstance(part, tuple | list):
        found, rest = list(part[: len(names)]), [*part[len(names) :], *rest]
    if len(found) != len(names) or not all(isinstance(tensor, Tensor) for tensor in found):
        expected = "a tensor, or a tuple (x, y) whose x is one"
        given = f"a {type(part).__name__}"
        if len(names) > 1:
            expected = f"a tuple that begins with tensors for {', '.join(names)}, or a dict of them"
            if isinstance(part, tuple | list):
                given += f" of {', '.join(type(item).__name__ for item in part) or 'nothing'}"
        raise InputError(f"a {purpose} batch is {given}; expected {expected}")
    return found, labels_of(rest[0]) if rest else None


def labelled(batch: Mapping[str, Any], names: Sequence[str] = ()) -> tuple[dict[str, Any], Any] | None:
    """A dict's inputs and its labels; None if it has no labels.

    Args:
        names: of the model's inputs, which are no labels; () if they are not known.

    >>> labelled({"motion": 1, "y": 2}), labelled({"motion": 1}), labelled({"x": 1, "y": 2}, ["x", "y"])
    (({'motion': 1}, 2), None, None)
    """
    for key in LABEL_KEYS:
        if key in batch and key not in names:
            return {name: part for name, part in batch.items() if name != key}, batch[key]
    return None


def is_group(part: object) -> bool:
    """Whether this is the inputs of a batch, in a tuple or dict of their own: the a and b of ((a, b), y)."""
    if isinstance(part, Mapping):
        part = [*part.values()]
    return isinstance(part, tuple | list) and all(isinstance(one, Tensor) for one in part)


def is_one_batch(data: object, inputs: int, shape: tuple[int, ...]) -> bool:
    """Whether a tuple is one batch: all inputs of a model of several, or in a tuple or dict of their own, or
    (x, y) where y is no further x.

    Args:
        inputs: number of the model's inputs.
        shape: of a sample of the first one.
    """
    if not isinstance(data, tuple) or not data:
        return False
    if not all(isinstance(part, Tensor) or labels_of(part) is not None for part in data[1:]):
        return False
    if not isinstance(data[0], Tensor):
        return len(data) > 1 and is_group(data[0])
    if inputs > 1:
        return True
    return len(data) > 1 and not (isinstance(data[1], Tensor) and tuple(data[1].shape[1:]) == shape)


def once_only(data: object) -> bool:
    """Whether data can be gone through only once."""
    return isinstance(data, Iterator)
