"""Training data as batches (x, y)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ..arguments import TensorOrArray, as_tensors
from ..data.forms import LABEL_KEYS, indices_of, is_group, labelled, labels_of
from ..errors import InputError

#: A loader (an iterable of batches (x, y) that can be iterated again), a dataset of samples (x, y), or all
#: samples as two tensors or arrays. For a model of several inputs x is a tuple of tensors, or a dict of them
#: by the names of forward's arguments.
TrainingData: TypeAlias = Iterable[Any] | Dataset[Any] | tuple[TensorOrArray, TensorOrArray]

#: Inputs without labels: a tensor or array, or training data whose labels are not read.
UnlabelledData: TypeAlias = TensorOrArray | TrainingData


class TensorBatches:
    """Batches of tensors, also in tuples and dicts; faster than a DataLoader, which collates its batches
    sample by sample.

    >>> batches = TensorBatches((torch.arange(5.0), torch.arange(5)), batch_size=2, shuffle=False)
    >>> len(batches), [y.tolist() for x, y in batches]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(self, tensors: tuple[Any, ...], *, batch_size: int, shuffle: bool) -> None:
        self.tensors = tensors
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-self._samples() // self.batch_size)

    def _samples(self) -> int:
        return len(tree_leaves(self.tensors)[0])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        samples = self._samples()
        order = torch.randperm(samples) if self.shuffle else torch.arange(samples)
        for indices in torch.split(order, self.batch_size) if samples else ():

            def part(tensor: Tensor, indices: Tensor = indices) -> Tensor:
                return tensor[indices.to(tensor.device)]

            yield tree_map(part, self.tensors)


def batches_of(
    data: TrainingData, *, batch_size: int, shuffle: bool, name: str, names: Sequence[str] = ()
) -> Iterable[Any]:
    """The data as batches.

    Args:
        batch_size: of tensors and datasets; a loader has its own.
        shuffle: likewise.
        name: for the messages.
        names: of the classes, by which labels may name them.

    Raises:
        InputError: the data are something else.
    """
    if isinstance(data, tuple | np.ndarray | Mapping):
        data = as_tensors(data)
    if isinstance(data, Mapping):
        data = split_batch(data, name, names)
    if isinstance(data, tuple) and len(data) == 2 and _is_pair(*data):
        x, y = data[0], _targets(data[1], names, name)
        inputs = tree_leaves(x) if isinstance(x, tuple | dict) and x else [x]
        if not all(isinstance(part, Tensor) for part in (*inputs, y)):
            raise InputError(
                f"{name} is ({type(x).__name__}, {type(y).__name__}); expected two tensors or "
                "arrays (torch.as_tensor makes them)"
            )
        return _tensor_batches((x, y), batch_size, shuffle, name)
    if isinstance(data, TensorDataset):
        return _tensor_batches(data.tensors, batch_size, shuffle, name)
    if isinstance(data, Dataset):
        shuffle = shuffle and not isinstance(data, IterableDataset)
        if not isinstance(data, IterableDataset) and len(cast(Any, data)) == 0:
            raise InputError(f"{name} is a dataset without samples; expected at least one")
        return DataLoader(data, batch_size=batch_size, shuffle=shuffle)
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise InputError(
            f"{name} is a {type(data).__name__}; expected a DataLoader or another iterable of batches (x, "
            "y), a Dataset, or a tuple of two tensors or arrays (x, y)"
        )
    if isinstance(data, Iterator):
        raise InputError(
            f"{name} is a {type(data).__name__}, which can be gone through only once, but every epoch goes "
            "through all data; expected a DataLoader, or a list of the batches"
        )
    return data


def inputs_of(data: UnlabelledData, batch_size: int) -> Iterable[Tensor]:
    """The inputs of all batches; can be iterated again.

    Raises:
        InputError: the data are something else; while iterating: a batch's inputs are not a tensor.

    >>> [x.tolist() for x in inputs_of(torch.arange(3.0), batch_size=2)]
    [[0.0, 1.0], [2.0]]
    """
    if isinstance(data, Tensor | np.ndarray):
        data = TensorDataset(as_tensors(data))
    return _Inputs(batches_of(data, batch_size=batch_size, shuffle=False, name="the data"))


class _Inputs:
    """Batches without their labels."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        for batch in map(as_tensors, self._batches):
            x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            if not isinstance(x, Tensor):
                raise InputError(
                    f"a batch of the data has inputs of type {type(x).__name__}; expected a tensor [N, ...]"
                )
            yield x


def _tensor_batches(tensors: tuple[Any, ...], batch_size: int, shuffle: bool, name: str) -> TensorBatches:
    lengths = [len(tensor) if tensor.dim() else 0 for tensor in tree_leaves(tensors)]
    if len(set(lengths)) > 1:
        raise InputError(f"{name} has tensors of {lengths} samples; expected as many targets as inputs")
    return TensorBatches(tensors, batch_size=batch_size, shuffle=shuffle)


def _is_pair(x: object, y: object) -> bool:
    """Whether (x, y) are all samples, and not two batches."""
    return isinstance(y, Tensor) or isinstance(x, Tensor) or is_group(x)


def _targets(y: Any, names: Sequence[str], where: str) -> Any:
    """Labels, also by name, as a tensor; targets of another form unchanged."""
    found = labels_of(y)
    if isinstance(found, list):
        return indices_of(found, names, len(names), where)
    return y if found is None else found


def split_batch(batch: Any, where: str, names: Sequence[str] = ()) -> tuple[Any, Any]:
    """A batch as (x, y).

    Args:
        names: of the classes, by which labels may name them.

    Raises:
        InputError: it is not a pair.
    """
    batch = as_tensors(batch)
    if isinstance(batch, Mapping):
        found = labelled(batch)
        if found is None:
            raise InputError(
                f"{where} is a dict of {', '.join(map(str, batch))}; expected its labels under one of "
                f"{', '.join(LABEL_KEYS)}"
            )
        batch = found
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        given = (
            f"{type(batch).__name__} of {len(batch)}"
            if isinstance(batch, (tuple, list))
            else type(batch).__name__
        )
        raise InputError(f"{where} is a {given}; expected a pair (x, y)")
    return batch[0], _targets(batch[1], names, where)


def to_device(value: Any, device: torch.device) -> Any:
    """A tensor, or tuples, lists and dicts of tensors, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, (tuple, list)):
        parts = [to_device(part, device) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    return value


def samples_in(x: Any, where: str) -> int:
    """The number of samples of a batch's inputs.

    Raises:
        InputError: the inputs are not a tensor, or have no samples.
    """
    while isinstance(x, (tuple, list, dict)) and x:
        x = next(iter(x.values())) if isinstance(x, dict) else x[0]
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise InputError(f"{where} has inputs of type {type(x).__name__}; expected a tensor of samples")
    if len(x) == 0:
        raise InputError(f"{where} has no samples; expected at least one in every batch")
    return len(x)
