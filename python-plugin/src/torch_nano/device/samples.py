"""Converts users' inputs and labels to the bytes and fields of requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import (
    INDEX_DTYPES,
    HasImage,
    TensorOrArray,
    as_integer,
    as_tensors,
    bind,
    check_indices,
    check_same_batch,
    check_tensor,
    class_index,
    shown,
)
from ..arithmetic.layout import Layout, Shape, to_device, torch_shapes
from ..arithmetic.tensors import check_finite, quantize_tensor
from ..data.forms import is_group, labelled
from ..errors import InputError, LabelError
from ..heads import Head
from ..heads.sgd import VALUE_STEPS
from .graph_values import GraphValue

#: One input of a model.
One = TensorOrArray
#: One input, or all of a model of several; see :class:`torch_nano.Device`.
Input = One | Sequence[One] | Mapping[str, One]
#: The label of an input: a class by index or name, all right classes, or a number.
Label = int | str | float | Sequence[bool] | NDArray[Any] | Tensor
#: Samples in batches or one by one.
Samples = Iterable[tuple[Input, Any]]


class KnownModel(HasImage, Protocol):
    """A :class:`torch_nano.NanoModule`, of which a client asks for its head and the shapes of its inputs."""

    head: Head | None

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Shape of one sample of each input."""

    @property
    def input_layouts(self) -> dict[str, Layout]:
        """From these shapes to those of the device's values, by name, where they differ."""

    @property
    def index_limits(self) -> dict[str, int | None]:
        """Of each input that holds indices, the number that they are below."""


#: Samples of a dataset that are read at a time.
_BATCH = 256
#: Bits of a target with several right classes on the device.
_BITS = 32


def input_bytes(input: Input, values: Sequence[GraphValue], nano: KnownModel | None) -> bytes:
    """One sample as the bytes for a device: those of all inputs, one after the other.

    Raises:
        InputError: wrong inputs, shape or dtype, NaN or infinity.
    """
    return bytes(_rows(input, values, nano, batch=False)[0].tobytes())


def batches(
    data: Input | Samples, labels: Any, values: Sequence[GraphValue], nano: KnownModel | None
) -> Iterator[tuple[bytes, Any]]:
    """The samples of a data set, each as the device's bytes and its label.

    Args:
        data: inputs with batch; if `labels` is None, the pair (inputs, labels), or several such pairs, in
            batches or one by one.

    Raises:
        InputError: as :func:`input_bytes`, or there are not as many labels as inputs.
    """
    names = [value.name for value in values]
    if labels is None and isinstance(data, Mapping):
        data = cast(Any, labelled(data, names) or data)
    elif labels is None and isinstance(data, Dataset):
        data = cast(Any, DataLoader(data, batch_size=_BATCH))
    # (x, y); a tuple of two pairs has no tensor in it.
    is_pair = (
        isinstance(data, tuple)
        and len(data) == 2
        and (any(isinstance(part, Tensor | np.ndarray) for part in data) or is_group(as_tensors(data[0])))
    )
    if labels is None and is_pair:
        data, labels = cast(tuple[Any, Any], data)
    pairs: Iterable[Any] = [(data, labels)] if labels is not None else data
    if not isinstance(pairs, Iterable | Sequence) and not hasattr(pairs, "__getitem__"):
        raise InputError(f"the data are {shown(data)}; expected inputs and labels, or pairs of them")
    for pair in pairs:
        if isinstance(pair, Mapping):
            pair = labelled(pair, names) or pair
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise InputError(
                f"the data give a {type(pair).__name__}; expected pairs (inputs, labels): fit(x, y), or "
                "fit(loader) with a DataLoader or a list of pairs"
            )
        inputs, targets = pair
        if labels is None and not _has_batch(inputs, values, nano):
            yield input_bytes(inputs, values, nano), targets
            continue
        rows = _rows(inputs, values, nano, batch=True)
        if not hasattr(targets, "__len__") or len(targets) != len(rows):
            count = f"{len(targets)} labels" if hasattr(targets, "__len__") else f"the label {targets!r}"
            raise InputError(f"there are {len(rows)} inputs and {count}; expected one label for each")
        for row, target in zip(rows, targets, strict=True):
            yield row.tobytes(), target


def _each(input: Input, values: Sequence[GraphValue]) -> list[Any]:
    """The given tensors in the order of the model's inputs."""
    names = [value.name for value in values]
    if isinstance(input, Mapping):
        return bind(names, (), {str(name): one for name, one in input.items()})
    if len(names) == 1:
        return [input]
    if not isinstance(input, tuple | list):
        raise InputError(
            f"the input is {shown(input)}; expected a tuple of the model's inputs ({', '.join(names)}), or a "
            "dict by name"
        )
    return bind(names, input, {})


def _has_batch(input: Input, values: Sequence[GraphValue], nano: KnownModel | None) -> bool:
    """Whether the input has a batch dimension."""
    given, value = _each(input, values)[0], values[0]
    tensor = _tensor(given, _called(values)[0], value)
    if isinstance(given, np.ndarray) and not tensor.is_floating_point():
        return tensor.dim() == 2 and tensor.shape[1] == value.elements
    if tensor.is_floating_point():
        return tuple(tensor.shape) not in _shapes(value, nano)
    return tensor.dim() > (1 if nano is None else len(nano.input_shapes[value.name]))


def _rows(
    input: Input, values: Sequence[GraphValue], nano: KnownModel | None, *, batch: bool
) -> NDArray[np.uint8]:
    """The bytes of all samples, [N, bytes of all inputs]."""
    called = _called(values)
    given = [
        _One(one, name, value, nano, batch=batch)
        for one, name, value in zip(_each(input, values), called, values, strict=True)
    ]
    check_same_batch(called, [one.tensor for one in given])
    pairs = zip(given, values, strict=True)
    rows = [one.integers().astype(value.travelling, copy=False).view(np.uint8) for one, value in pairs]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


class _One:
    """The given tensor for one of a model's inputs, with a batch dimension.

    Raises:
        InputError: wrong shape or dtype.
    """

    def __init__(
        self, given: Any, name: str, value: GraphValue, nano: KnownModel | None, *, batch: bool
    ) -> None:
        tensor = _tensor(given, name, value)
        floats = tensor.is_floating_point()
        limit = None if nano is None else nano.index_limits.get(value.name)
        indices = value.quantization.holds_indices
        if indices:
            if tensor.dtype not in INDEX_DTYPES:
                raise InputError(f"{name} has dtype {tensor.dtype}; expected indices, int64 or int32")
            # A device by itself knows no limit; its kernel reads the nearest row.
            check_indices(name, tensor, 2**31 if limit is None else limit)
            tensor = tensor.to(value.quantization.torch_dtype)
        elif not floats and tensor.dtype != value.quantization.torch_dtype:
            raise InputError(
                f"{name} has dtype {tensor.dtype}; expected floats, or the device's {value.dtype}"
            )
        self._value = value
        self._layout = None if nano is None else nano.input_layouts.get(value.name)
        if indices:
            # Indices are the user's own numbers, also in an array.
            ordered = nano is None or tuple(tensor.shape[int(batch) :]) not in _shapes(value, nano)
        else:
            # Arrays of integers have the device's order already, and so any shape.
            flat = tensor.dim() == int(batch) + 1 and self._layout is None
            ordered = isinstance(given, np.ndarray) or nano is None or flat
        self._is_ordered = not floats and ordered
        if self._is_ordered:
            count = len(tensor) if batch and tensor.dim() else 1
            if tensor.numel() != count * value.elements:
                expected = f"[N, {value.elements}]" if batch else f"{value.elements} elements"
                raise InputError(f"{name} has shape {list(tensor.shape)}; expected {value.dtype} {expected}")
            self.tensor = tensor.reshape(count, value.elements)
            return
        shapes = _shapes(value, nano)
        if tuple(tensor.shape[int(batch) :]) not in shapes or tensor.dim() < int(batch):
            expected = ", ".join((["N"] if batch else []) + [str(side) for side in shapes[-1]])
            shape = f"shape {list(tensor.shape)} and dtype {tensor.dtype}"
            raise InputError(f"{name} has {shape}; expected [{expected}] of floats or {value.dtype}")
        self.tensor = tensor if batch else tensor[None]

    def integers(self) -> NDArray[Any]:
        """The device's integers, in its order: [N, elements].

        Raises:
            InputError: NaN or infinity.
        """
        tensor = self.tensor
        if self._layout is not None and not self._is_ordered:
            tensor = self._layout.apply(tensor)
        if tensor.is_floating_point():
            check_finite(tensor)
            tensor = quantize_tensor(tensor, self._value.quantization, self._value.channels)
        return (tensor if self._is_ordered else to_device(tensor)).numpy()


def _shapes(value: GraphValue, nano: KnownModel | None) -> list[Shape]:
    """The shapes in torch's layout that a sample of an input can have: the model's own, if that is known."""
    return torch_shapes(value.shape) if nano is None else [tuple(nano.input_shapes[value.name])]


def _called(values: Sequence[GraphValue]) -> list[str]:
    """The names of the inputs in messages."""
    return ["the input"] if len(values) == 1 else [f"the input {value.name!r}" for value in values]


def _tensor(input: Any, name: str, value: GraphValue) -> Tensor:
    if isinstance(input, Tensor):
        check_tensor(name, input, error=InputError)
        return input.detach().cpu()
    try:
        tensor = as_tensors(np.asarray(input))
    except (TypeError, ValueError):
        tensor = None
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"{name} is {shown(input)}; expected a tensor or an array of floats, or of the device's "
            f"{value.dtype}"
        )
    return tensor


def label_fields(label: Any, target: str, classes: int, names: Sequence[str]) -> dict[str, Any]:
    """The target's fields of the request "learn".

    >>> label_fields(2, "class", 3, []), label_fields("run", "class", 3, ["walk", "run"])
    ({'label': 2}, {'label': 1})
    >>> label_fields([True, False, True], "labels", 3, []), label_fields(0.5, "value", 1, [])
    ({'bits': 5}, {'value': 2048})

    Args:
        target: the head's kind of targets, :attr:`torch_nano.device.DeviceInfo.target`.

    Raises:
        LabelError: there is no such class, or the head learns from other labels.
    """
    if isinstance(label, Tensor | np.ndarray | np.generic):
        label = label.tolist()
    match target:
        case "class":
            if isinstance(label, str) or as_integer(label) is not None:
                return {"label": class_index(label, classes, names)}
            expected = "one right class, its index (an integer) or its name"
        case "labels":
            bools = isinstance(label, Sequence) and all(isinstance(right, bool) for right in label)
            if bools and len(label) == classes <= _BITS:
                return {"bits": sum(right << index for index, right in enumerate(label))}
            expected = f"all right classes (loss 'binary'), a list of {classes} bools"
        case "value":
            value = label * VALUE_STEPS if isinstance(label, float) else math.nan
            if math.isfinite(value) and abs(value) < 2**31:
                return {"value": round(value)}
            expected = "a number (loss 'squared'), a finite float around 1"
        case other:
            raise ValueError(f"no head learns from {other!r}")
    raise LabelError(f"the label is {label!r:.60}; this head learns from {expected}")
