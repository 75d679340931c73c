"""Calibration: runs data through a graph in float and observes the range of each value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..arguments import check_batch, check_same_batch
from ..errors import InputError, NonFiniteError
from ..ir.graph import Graph
from .channel_ranges import ChannelRanges
from .observers import MinMaxObserver, Observer, PercentileObserver
from .ranges import quantization

Method = Literal["minmax", "percentile"]
#: A tensor, or batches: tensors, tuples (x, y, ...) that begin with the model's inputs, as from a DataLoader,
#: or dicts that have them by name. For several inputs also one such tuple or dict.
CalibrationData = Tensor | Mapping[str, Tensor] | Iterable[Any]

#: Percentage that the method "percentile" covers; the rest is below the noise of most sensors.
PERCENTILE = 99.99
#: Samples per float run: bounds the memory.
_CHUNK = 256


def calibrate(
    graph: Graph, data: CalibrationData, method: Method = "minmax"
) -> dict[str, tuple[float, float]]:
    """The range of every value of a graph, by name.

    Args:
        data: a tensor [N, ...], or an iterable of such tensors, of tuples that begin with one for each input
            (a DataLoader) or of dicts that have one by each input's name; such a tuple or dict itself.
        method: "minmax" covers all numbers, "percentile" the middle 99.99 per cent of them.

    Warns:
        ChannelRangeWarning: an input's scale rounds some of its channels away.

    Raises:
        InputError: the data is empty or of a wrong shape or dtype, or the method is unknown.
        NonFiniteError: NaN or infinity in the data, a weight or an activation.

    >>> from torch_nano.capture.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.ReLU()), torch.zeros(2, 3))
    >>> calibrate(graph, torch.tensor([[-1.0, 2.0, 4.0]]))
    {'input': (-1.0, 4.0), 'relu': (0.0, 4.0)}
    """
    if method not in get_args(Method):
        raise InputError(
            f"there is no calibration method {method!r}; expected one of {', '.join(get_args(Method))}"
        )
    check_parameters(graph)
    observers: dict[str, Observer] = {}
    channels = {name: ChannelRanges() for name in graph.inputs if not _has_scales(graph, name)}

    def observe(name: str, tensor: Tensor) -> None:
        if not torch.isfinite(tensor).all():
            place = (
                "the input"
                if name in graph.inputs
                else f"the output of module {_path(graph.values[name].module_path)}"
            )
            raise NonFiniteError(f"calibration data: {place} (value {name}) holds NaN or infinity")
        if name not in observers:
            observers[name] = MinMaxObserver() if method == "minmax" else PercentileObserver(PERCENTILE)
        observers[name].observe(tensor)
        if name in channels:
            channels[name].observe(tensor)

    with torch.no_grad():
        for batch in _batches(graph, data):
            graph.float_run(*batch, observe=observe)
    if not observers:
        raise InputError("the calibration data is empty; expected at least one sample")
    ranges = {name: observer.range() for name, observer in observers.items()}
    for name, one in channels.items():
        one.warn(name, quantization(*ranges[name]).scale)
    return ranges


def check_parameters(graph: Graph) -> None:
    """Checks that all parameters are finite.

    Raises:
        NonFiniteError: one is not; the message names the parameter and its module.
    """
    named = [(name, graph.module_path(node)) for node in graph.nodes for name in node.parameters.values()]
    for affines in graph.affines.values():
        named += [(name, affine.module_path) for affine in affines for name in affine.parameters.values()]
    for name, path in named:
        if not torch.isfinite(graph.parameters[name]).all():
            raise NonFiniteError(f"parameter {name} of module {_path(path)} holds NaN or infinity")
    for name, affines in graph.affines.items():
        for affine in affines:
            numbers = affine.scale_and_shift(graph.parameters)
            if not all(torch.isfinite(number).all() for number in numbers):
                raise NonFiniteError(
                    f"module {_path(affine.module_path)} multiplies input {name!r} by infinity or NaN, or "
                    "adds it: is a standard deviation or a divisor 0?"
                )


def _has_scales(graph: Graph, name: str) -> bool:
    """Whether the affines of an input give each channel a scale of its own."""
    found = graph.factor_and_shift(name)
    return found is not None and bool((found[0] != found[0][0]).any())


def _path(module_path: str) -> str:
    return repr(module_path) if module_path else "'' (the model itself)"


def _batches(graph: Graph, data: CalibrationData) -> Iterator[list[Tensor]]:
    """The inputs of each float run."""
    names = graph.inputs
    for part in _parts(data, len(names)):
        tensors = _inputs_of(names, part)
        for name, tensor in zip(names, tensors, strict=True):
            label = "a calibration batch" if len(names) == 1 else f"a calibration batch's {name!r}"
            check_batch(label, tensor, graph.values[name].shape)
        check_same_batch(names, tensors)
        for start in range(0, len(tensors[0]), _CHUNK):
            yield [tensor[start : start + _CHUNK].detach().to("cpu", torch.float32) for tensor in tensors]


def _inputs_of(names: Sequence[str], part: Any) -> list[Tensor]:
    """The model's inputs in one batch.

    Raises:
        InputError: an input is missing.
    """
    found: list[Any] = []
    if isinstance(part, Mapping):
        missing = [name for name in names if name not in part]
        if missing:
            raise InputError(
                f"a calibration batch is a dict of {', '.join(map(str, part))}; it lacks {missing[0]!r}, an "
                "input of the model"
            )
        found = [part[name] for name in names]
    elif isinstance(part, Tensor):
        found = [part]
    elif isinstance(part, tuple | list):
        found = list(part[: len(names)])
    if len(found) != len(names) or not all(isinstance(tensor, Tensor) for tensor in found):
        expected = "a tensor, or a tuple (x, y) whose x is one"
        given = f"a {type(part).__name__}"
        if len(names) > 1:
            expected = f"a tuple that begins with tensors for {', '.join(names)}, or a dict of them"
            if isinstance(part, tuple | list):
                given += f" of {', '.join(type(item).__name__ for item in part) or 'nothing'}"
        raise InputError(f"a calibration batch is {given}; expected {expected}")
    return found


def _parts(data: CalibrationData, inputs: int) -> Iterable[Any]:
    """The batches of the data, for a model with this number of inputs."""
    one_tuple = inputs > 1 and isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data)
    if isinstance(data, Tensor | Mapping) or one_tuple:
        return [data]
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return data
    raise InputError(
        f"calibration data is a {type(data).__name__}; expected a tensor or an iterable of batches"
    )
