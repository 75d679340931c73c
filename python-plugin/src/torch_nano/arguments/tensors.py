"""Tensors and arrays that a user gives, alone and as the inputs of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import HeadError, InputError, TorchNanoError
from .scalars import shown

Item = TypeVar("Item")

#: Numbers that a user gives: an array of numpy is taken as a tensor.
TensorOrArray = torch.Tensor | NDArray[Any]
#: The dtypes of indices: of an argmax's, and of an embedding's rows.
INDEX_DTYPES = (torch.int64, torch.int32)


def as_tensors(value: Any) -> Any:
    """`value` with its numpy arrays as tensors, also inside of tuples, lists and dicts.

    Arrays that torch has no dtype for stay as they are, as does everything else.

    >>> as_tensors((np.zeros(2, np.float32), {"x": np.arange(2)}, "y"))
    (tensor([0., 0.]), {'x': tensor([0, 1])}, 'y')
    """
    if isinstance(value, np.ndarray):
        return _tensor_of(value) if value.dtype.kind in "fiub" else value
    if type(value) in (tuple, list):
        return type(value)(map(as_tensors, value))
    if isinstance(value, dict):
        return {key: as_tensors(part) for key, part in value.items()}
    return value


def _tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """An array of numbers as a tensor."""
    # torch takes no long double, no other byte order, no negative strides, and warns of read-only arrays.
    own = (
        np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    )
    native = np.ascontiguousarray(array, own).reshape(array.shape)
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def check_tensor(name: str, tensor: object, *, error: type[TorchNanoError] = HeadError) -> None:
    """Checks that an argument is a dense tensor.

    Raises:
        TorchNanoError: of kind `error`: it is not a tensor, is on the meta device or has another layout.
    """
    if not isinstance(tensor, torch.Tensor):
        raise error(f"{name} is {shown(tensor)}; expected a tensor or an array of numbers")
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
        raise error(f"{name} is a tensor {kind}; expected a dense one with numbers in it")


def names_of(kinds: Sequence[type], dtype: torch.dtype) -> str:
    """The kinds of numbers in an error: floats (float) and the integers of `dtype` (int).

    >>> names_of((float, int), torch.int16)
    'floats or int16'
    """
    names = {float: "floats", int: str(dtype).removeprefix("torch.")}
    return " or ".join(names[kind] for kind in kinds)


def check_batch(
    name: str,
    x: object,
    shape: tuple[int, ...],
    kinds: tuple[type, ...] = (float,),
    dtype: torch.dtype = torch.int8,
    index_limit: int | None = None,
) -> None:
    """Checks that a batch is a dense tensor [N, *shape] of floats (kind float) or of `dtype` (kind int); with
    an `index_limit`, of integers from 0 to that limit - 1.

    >>> check_batch("x", torch.zeros(3, dtype=torch.int8), (4,), (int,))
    Traceback (most recent call last):
    torch_nano.errors.InputError: x has shape (3,) and dtype torch.int8; expected a tensor [N, 4] of int8
    >>> check_batch("x", torch.tensor([[3, 40]]), (2,), index_limit=40)
    Traceback (most recent call last):
    torch_nano.errors.InputError: x holds the index 40; expected 0 to 39, the rows of an embedding

    Raises:
        InputError: it is something else.
    """
    sides = f"[{', '.join(map(str, ('N', *shape)))}]"
    indices = index_limit is not None
    expected = f"a tensor {sides} of {'int64 indices' if indices else names_of(kinds, dtype)}"
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{name} is a {type(x).__name__}; expected {expected}")
    check_tensor(name, x, error=InputError)
    right = (x.is_floating_point() and float in kinds) or (x.dtype == dtype and int in kinds)
    if indices:
        right = x.dtype in INDEX_DTYPES
    if not right or x.dim() == 0 or tuple(x.shape[1:]) != shape:
        way_out = ": one sample needs a batch dimension, x[None]" if tuple(x.shape) == shape else ""
        raise InputError(
            f"{name} has shape {tuple(x.shape)} and dtype {x.dtype}; expected {expected}{way_out}"
        )
    if index_limit is not None:
        check_indices(name, x, index_limit)


def check_indices(name: str, x: torch.Tensor, limit: int) -> None:
    """Checks that all of a tensor's indices are from 0 to `limit` - 1.

    Raises:
        InputError: one is not.
    """
    if torch.compiler.is_compiling() or not x.numel():
        return
    low, high = (bound.item() for bound in torch.aminmax(x))
    if low < 0 or high >= limit:
        raise InputError(
            f"{name} holds the index {low if low < 0 else high}; expected 0 to {limit - 1}, the rows of an "
            "embedding"
        )


def check_inputs(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Sequence[object],
    kinds: tuple[type, ...] = (float,),
    dtypes: Mapping[str, torch.dtype] | None = None,
    index_limits: Mapping[str, int | None] = MappingProxyType({}),
) -> None:
    """Checks that there is one tensor for each name in `shapes`, as :func:`check_batch`, of one batch size.

    >>> check_inputs({"a": (4,), "b": (4,)}, [torch.zeros(2, 4), torch.zeros(3, 4)])
    Traceback (most recent call last):
    torch_nano.errors.InputError: the inputs are batches of different sizes: a of 2, b of 3; expected one size

    Raises:
        InputError: a tensor is wrong, or the batch sizes differ.
    """
    for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
        label = "the input" if len(shapes) == 1 else f"the input {name!r}"
        check_batch(label, tensor, shape, kinds, (dtypes or {}).get(name, torch.int8), index_limits.get(name))
    if len(shapes) > 1:
        check_same_batch(list(shapes), [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)])


def check_same_batch(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
    """Checks that all tensors have the same number of samples.

    Raises:
        InputError: they differ.
    """
    counts = [len(tensor) for tensor in tensors]
    if any(count != counts[0] for count in counts):
        pairs = ", ".join(f"{name} of {count}" for name, count in zip(names, counts, strict=True))
        raise InputError(f"the inputs are batches of different sizes: {pairs}; expected one size")


def bind(names: Sequence[str], positional: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call in the order of `names`, one for each.

    Raises:
        InputError: one is missing, given twice or unknown.

    >>> bind(["image", "mask"], [1], {"mask": 2})
    [1, 2]
    """
    if not named and len(positional) == len(names):
        return list(positional)
    given = dict(zip(names, positional, strict=False))
    unknown = [name for name in named if name not in names or name in given]
    given.update(named)
    if unknown or len(positional) > len(names) or len(given) < len(names):
        count = f"{len(names)} inputs" if len(names) > 1 else "one input"
        passed = [f"{len(positional)} by position"] if positional or not named else []
        passed += [f"by name {', '.join(named)}"] if named else []
        raise InputError(f"the model takes {count} ({', '.join(names)}); it is given {' and '.join(passed)}")
    return [given[name] for name in names]


def the_only(kind: str, items: Mapping[str, Item]) -> Item:
    """What a model of one input, or of one output, has for it.

    Raises:
        InputError: the model has several.

    >>> the_only("input", {"x": (3, 8)})
    (3, 8)
    """
    if len(items) != 1:
        raise InputError(f"the model has {len(items)} {kind}s ({', '.join(items)}); expected a model of one")
    (item,) = items.values()
    return item
