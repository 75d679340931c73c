"""Inputs and labels as users have them, into the bytes and fields of requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import HasImage, as_integer, check_tensor, shown
from ..arithmetic.layout import Shape, to_device
from ..errors import InputError, LabelError
from ..heads import Head
from ..heads.sgd import VALUE_STEPS

#: One input, see :class:`torch_nano.Device`.
Input = Tensor | NDArray[Any]
#: What is right for an input: a class by index or name, all right classes, or a number.
Label = int | str | float | Sequence[bool] | NDArray[Any] | Tensor
#: Samples in batches or one by one.
Samples = Iterable[tuple[Input, Any]]


class KnownModel(HasImage, Protocol):
    """A :class:`torch_nano.NanoModule`, of which a client asks how the device sees its inputs."""

    head: Head | None

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""

    def device_inputs(self, x: Tensor) -> NDArray[np.int8]:
        """Floats [N, ...] as the device's int8 [N, elements]."""


#: Bits that the labels of an input have on the device.
_BITS = 32


def input_bytes(input: Input, length: int, nano: KnownModel | None) -> bytes:
    """One input as a device takes it, `length` bytes.

    Raises:
        InputError: wrong shape or dtype, NaN or infinity, or floats without a model to quantize them.
    """
    return bytes(_rows(input, length, nano, batch=False)[0].tobytes())


def batches(
    data: Input | Samples, labels: Any, length: int, nano: KnownModel | None
) -> Iterator[tuple[bytes, Any]]:
    """The samples of a data set, each as the device's bytes and its label.

    Args:
        data: inputs with batch, or pairs (inputs, labels), in batches or one by one, if `labels` is None.

    Raises:
        InputError: as :func:`input_bytes`, or there are not as many labels as inputs.
    """
    pairs: Iterable[Any] = [(data, labels)] if labels is not None else data
    if not isinstance(pairs, Iterable | Sequence) and not hasattr(pairs, "__getitem__"):
        raise InputError(f"the data are {shown(data)}; expected inputs and labels, or pairs of them")
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise InputError(
                f"the data give a {type(pair).__name__}; expected pairs (inputs, labels): fit(x, y), or "
                "fit(loader) with a DataLoader or a list of pairs"
            )
        inputs, targets = pair
        if labels is None and not _has_batch(inputs, length, nano):
            yield input_bytes(inputs, length, nano), targets
            continue
        rows = _rows(inputs, length, nano, batch=True)
        if not hasattr(targets, "__len__") or len(targets) != len(rows):
            count = f"{len(targets)} labels" if hasattr(targets, "__len__") else f"the label {targets!r}"
            raise InputError(f"there are {len(rows)} inputs and {count}; expected one label for each")
        for row, target in zip(rows, targets, strict=True):
            yield row.tobytes(), target


def _has_batch(input: Input, length: int, nano: KnownModel | None) -> bool:
    """Whether there is a dimension of samples in front."""
    array = _tensor(input)
    if isinstance(input, np.ndarray) and array.dtype == torch.int8:
        return array.dim() == 2 and array.shape[1] == length
    return array.dim() > (1 if nano is None else len(nano.input_shape))


def _rows(input: Input, length: int, nano: KnownModel | None, *, batch: bool) -> NDArray[np.int8]:
    """int8 [N, length] in the device's order."""
    tensor = _tensor(input)
    floats = tensor.is_floating_point()
    if not floats and tensor.dtype != torch.int8:
        raise InputError(f"the input has dtype {tensor.dtype}; expected floats, or the device's int8")
    if floats and nano is None:
        raise InputError(
            "the input is of floats; to quantize it the client must know the model: Device(..., nano=nano)"
        )
    # Arrays of int8 have the device's order already, and so any shape.
    ordered = isinstance(input, np.ndarray) or nano is None or tensor.dim() == int(batch) + 1
    if not floats and ordered:
        count = len(tensor) if batch and tensor.dim() else 1
        if tensor.numel() != count * length:
            expected = f"[N, {length}]" if batch else f"{length} elements"
            raise InputError(f"the input has shape {list(tensor.shape)}; expected int8 {expected}")
        return tensor.reshape(count, length).numpy()
    assert nano is not None
    if tuple(tensor.shape[int(batch) :]) != tuple(nano.input_shape) or tensor.dim() < int(batch):
        expected = ", ".join((["N"] if batch else []) + [str(side) for side in nano.input_shape])
        given = f"shape {list(tensor.shape)} and dtype {tensor.dtype}"
        raise InputError(f"the input has {given}; expected [{expected}] of floats or int8")
    tensor = tensor if batch else tensor[None]
    return nano.device_inputs(tensor) if floats else to_device(tensor).numpy()


def _tensor(input: Input) -> Tensor:
    if isinstance(input, Tensor):
        check_tensor("the input", input, error=InputError)
        return input.detach().cpu()
    try:
        array = np.ascontiguousarray(input)
        return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the input is {shown(input)}; expected a tensor or an array of floats, or of the device's int8"
        ) from error


def label_fields(label: Any, target: str, classes: int, names: Sequence[str]) -> dict[str, Any]:
    """The fields of the request "learn" that say what is right.

    >>> label_fields(2, "class", 3, []), label_fields("run", "class", 3, ["walk", "run"])
    ({'label': 2}, {'label': 1})
    >>> label_fields([True, False, True], "labels", 3, []), label_fields(0.5, "value", 1, [])
    ({'bits': 5}, {'value': 2048})

    Args:
        target: what the head learns from, :attr:`torch_nano.DeviceInfo.target`.

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


def class_index(wanted: int | str, classes: int, names: Sequence[str]) -> int:
    """The index of a class that is named, or its index.

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
