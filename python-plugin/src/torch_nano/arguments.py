"""Validation of arguments and settings, with errors that say what was given and what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import _native
from .errors import FileFormatError, HeadError, InputError, LabelError, TorchNanoError

Item = TypeVar("Item")

#: Numbers that a user gives: an array of numpy is taken as a tensor.
TensorOrArray = torch.Tensor | NDArray[Any]

#: The largest number of a field of the device's protocol.
LARGEST = _native.LARGEST_COUNT
#: The dtypes of indices: of an argmax's, and of an embedding's rows.
INDEX_DTYPES = (torch.int64, torch.int32)
#: Seconds; operating systems count the milliseconds of a time-out in 31 bits.
_WAITS = (0.001, 1e6)


def plain(value: Any) -> Any:
    """Converts a scalar of numpy or torch to Python's; returns anything else unchanged."""
    scalar = isinstance(value, np.ndarray | np.generic | torch.Tensor) and value.ndim == 0
    return value.item() if scalar else value


def whole_number(
    name: str,
    value: object,
    *,
    least: int = 0,
    most: int | None = None,
    error: type[TorchNanoError] = HeadError,
) -> int:
    """`value` as an int: Python's, or a scalar of numpy or torch.

    >>> whole_number("epochs", np.int64(3))
    3
    >>> whole_number("epochs", 1.5)
    Traceback (most recent call last):
    torch_nano.errors.HeadError: epochs is 1.5; expected a whole number, 0 or more

    Raises:
        TorchNanoError: of kind `error`: it is not a whole number, or not from `least` to `most`.
    """
    number = plain(value)
    whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not whole or number < least or (most is not None and number > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise error(f"{name} is {shown(value)}; expected a whole number, {limits}")
    return int(number)


def positive_number(
    name: str,
    value: object,
    *,
    within: tuple[float, float] = (0.0, math.inf),
    error: type[TorchNanoError] = HeadError,
) -> float:
    """`value` as a float above 0 and finite: Python's, or a scalar of numpy or torch.

    >>> positive_number("learning_rate", torch.tensor(0.5))
    0.5
    >>> positive_number("learning_rate", -1)
    Traceback (most recent call last):
    torch_nano.errors.HeadError: learning_rate is -1; expected a finite number above 0

    Raises:
        TorchNanoError: of kind `error`: it is not such a number, or not within `within`.
    """
    number = plain(value)
    try:
        real = float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    except OverflowError:
        real = math.inf
    if not (0.0 < real < math.inf and within[0] <= real <= within[1]):
        limits = "a finite number above 0"
        if within[1] < math.inf:
            limits = f"a number from {within[0]} to {within[1]}"
        raise error(f"{name} is {shown(value)}; expected {limits}")
    return real


def items(name: str, value: object, expected: str, *, error: type[TorchNanoError] = HeadError) -> list[Any]:
    """The items of a list, tuple, or array or tensor of one dimension.

    Raises:
        TorchNanoError: of kind `error`: it is something else.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 1:
        return list(value.tolist())
    raise error(f"{name} is {shown(value)}; expected {expected}")


def mapping(
    name: str, value: object, expected: str, *, error: type[TorchNanoError] = HeadError
) -> dict[Any, Any]:
    """The entries of a mapping; empty for None.

    Raises:
        TorchNanoError: of kind `error`: it is not a mapping.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise error(f"{name} is {shown(value)}; expected {expected}")
    return dict(value)


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


def path_of(name: str, given: Any) -> Path:
    """Converts an argument to a Path.

    Raises:
        InputError: it is not a path, empty, or has a zero in it.
    """
    try:
        path = Path(given)
    except TypeError as error:
        raise InputError(f"{name} is {shown(given)}; expected a path") from error
    if given == "":
        raise InputError(f"{name} is ''; expected a path, such as '.' for the current folder")
    if "\0" in str(path):
        raise InputError(f"{name} is {shown(given)}; expected a path, which has no zero in it")
    return path


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


def integer(name: str, given: Any, least: int = 0) -> int:
    """Converts an integer of Python, numpy or torch, from `least` to 2^32 - 1, to Python's int.

    Raises:
        InputError: it is not such an integer.
    """
    return whole_number(name, given, least=least, most=LARGEST, error=InputError)


def as_integer(given: Any) -> int | None:
    """Converts an integer of Python, numpy or torch to Python's; None for anything else, bools included.

    >>> import torch
    >>> as_integer(torch.tensor(2)), as_integer(True), as_integer(2.0)
    (2, None, None)
    """
    number = plain(given)
    return int(number) if isinstance(number, Integral) and not isinstance(number, bool) else None


def probability(name: str, given: Any) -> float:
    """Converts a probability, a number from 0 to 1, to Python's float.

    Raises:
        InputError: it is not one.
    """
    number = plain(given)
    real = isinstance(number, Real) and not isinstance(number, bool)
    if not real or not 0 <= number <= 1:
        raise InputError(f"{name} is {shown(given)}; expected a probability, 0 to 1")
    return float(number)


def seconds(name: str, given: Any) -> float:
    """Converts a time-out in seconds to Python's float.

    Raises:
        InputError: it is not a number, below a millisecond, or longer than operating systems can wait.
    """
    return positive_number(name, given, within=_WAITS, error=InputError)


def text(name: str, given: Any) -> str:
    """Checks that an argument is a str that UTF-8 can encode.

    Raises:
        InputError: it is not.
    """
    if not isinstance(given, str):
        raise InputError(f"{name} is {shown(given)}; expected a text")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is {given!r}, which is no Unicode text: {error.reason}") from error
    return given


class HasImage(Protocol):
    """Anything with an image: a :class:`torch_nano.NanoModule`."""

    @property
    def image(self) -> bytes:
        """The `.nano` image."""


def image_of(nano: HasImage | _native.Model | bytes) -> _native.Model:
    """The checked image of a model that is given as a module or as its image.

    Raises:
        InputError: it is neither.
        FileFormatError: the bytes are not an image, or are damaged.
    """
    image = bytes_of(nano)
    checked = nano if isinstance(nano, _native.Model) else getattr(nano, "_model", None)
    if isinstance(checked, _native.Model):
        return checked
    try:
        return _native.Model(image)
    except _native.NanoError as error:
        raise FileFormatError(f"the {len(image)} bytes given are no model's image: {error}") from error


def bytes_of(nano: HasImage | _native.Model | bytes) -> bytes:
    """The image bytes of a model that is given as a module or as its image.

    Raises:
        InputError: it is neither.
    """
    image = nano if isinstance(nano, bytes | bytearray) else getattr(nano, "image", None)
    if not isinstance(image, bytes | bytearray):
        way = (
            "read the file: tn.load(path), or Path(path).read_bytes() of a model.nano"
            if isinstance(nano, str | Path)
            else "tn.to_nano(model, ...) gives it"
        )
        raise InputError(f"nano is {shown(nano)}; expected a NanoModule, or its image as bytes: {way}")
    return bytes(image)


def class_index(wanted: int | str, classes: int, names: Sequence[str]) -> int:
    """The index of a class, given its name or its index.

    >>> class_index("wlak", 2, ["walk", "run"])
    Traceback (most recent call last):
    torch_nano.errors.LabelError: no class is called 'wlak'; did you mean 'walk'? Known: walk, run

    Raises:
        LabelError: there is no such class.
    """
    index = as_integer(wanted)
    if index is not None:
        if not 0 <= index < classes:
            raise LabelError(f"there is no class {index}; expected 0 to {classes - 1}")
        return index
    if not isinstance(wanted, str):
        raise LabelError(f"the class is {shown(wanted)}; expected its index or its name")
    if wanted in names and wanted:
        return names.index(wanted)
    named = [name for name in names if name]
    similar = get_close_matches(wanted, named, 1)
    guess = f"did you mean {similar[0]!r}? " if similar else ""
    there = f"Known: {', '.join(named)}" if named else "None has a name on this device: use indices"
    raise LabelError(f"no class is called {wanted!r}; {guess}{there}")


def shown(value: object) -> str:
    """`value` for an error message: on one line, shortened to 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
