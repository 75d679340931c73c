"""Compares a model's bytes in nano-core on this machine with those of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import _native
from ..arithmetic.layout import to_device
from ..calibration.batches import samples_of_a_run
from ..calibration.quantize import QuantizedGraph
from ..device.client import Device
from ..device.transport.qemu import QemuBoard
from ..ir.lifetimes import all_numbers
from ..progress import progress_of
from ..tables import paragraph
from .image import made_of


@dataclass(frozen=True)
class LayerDifference:
    """The first layer whose bytes differ."""

    #: The image's operator: one layer of the image may compute two of the graph.
    operator: str
    module_path: str
    #: Name of the value in the graph.
    value: str
    differing_bytes: int


@dataclass(frozen=True, repr=False)
class VerifyReport:
    """The result of comparing nano-core on this machine with a target; true if no byte differs.

    >>> print(VerifyReport("host", 8, 640, 0, None))
    host: 8 inputs, 640 bytes compared, 0 differ
    """

    target: str
    #: Number of inputs run on both.
    inputs: int
    compared_bytes: int
    differing_bytes: int
    #: None if nothing differs, or if only the target's output is known.
    first_difference: LayerDifference | None

    def __bool__(self) -> bool:
        return self.differing_bytes == 0

    def __str__(self) -> str:
        counts = f"{self.compared_bytes:,} bytes compared, {self.differing_bytes:,} differ"
        text = f"{self.target}: {self.inputs} inputs, {counts}"
        first = self.first_difference
        if first is None:
            return text
        where = f"{first.operator} of module {first.module_path!r} (value {first.value})"
        return f"{text}; first in {where}: {first.differing_bytes:,} bytes"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return paragraph(str(self))


def verify_host(model: _native.Model, graph: QuantizedGraph, inputs: Sequence[Tensor]) -> VerifyReport:
    """Compares nano-core with the integer run in plain torch, every byte that a layer of the image writes.

    Args:
        inputs: integers in the user's shapes, with batch.
    """
    values = [graph.graph.values[name] for name in graph.graph.inputs]
    made = [
        (entry, graph.graph.values[name])
        for entry, nodes in made_of(graph, model)
        for name in nodes[-1].outputs
    ]
    compared, differing = 0, [0 for _ in made]
    # Every value of a run is kept until it is compared.
    samples = samples_of_a_run(all_numbers(graph.graph))
    with progress_of("verification", len(inputs[0])) as advance:
        for part in zip(*(torch.split(x, samples) for x in inputs), strict=True):
            expected: dict[str, Tensor] = {}
            graph.integer_run(*part, observe=expected.__setitem__)
            traced = model.trace([value.to_device(x).numpy() for value, x in zip(values, part, strict=True)])
            for index, ((_, value), elements) in enumerate(zip(made, traced, strict=True)):
                compared += elements.nbytes
                differing[index] += differing_bytes(elements, to_device(expected[value.name]).numpy())
            advance(len(part[0]))
    first = None
    for (entry, value), differs in zip(made, differing, strict=True):
        if differs:
            first = LayerDifference(entry["operator"], value.module_path, value.name, differs)
            break
    return VerifyReport("host", len(inputs[0]), compared, sum(differing), first)


def differing_bytes(a: NDArray[Any], b: NDArray[Any]) -> int:
    """The number of bytes that differ between two arrays of one dtype and length.

    Raises:
        ValueError: their dtypes or lengths differ.

    >>> differing_bytes(np.array([1, 256], np.int16), np.array([1, 513], np.int16))
    2
    """
    if a.dtype != b.dtype or a.size != b.size:
        raise ValueError(f"{a.dtype} {list(a.shape)} is compared with {b.dtype} {list(b.shape)}")
    first, second = (np.frombuffer(array.tobytes(), np.uint8) for array in (a, b))
    return int(np.count_nonzero(first != second))


def verify_rv32imc(model: _native.Model, arrays: Sequence[NDArray[Any]]) -> VerifyReport:
    """Compares nano-core here with nano-core on the emulated rv32imc board: the outputs, and the logits of
    the head as the image has it.

    Args:
        arrays: integers in the device's order, [N, elements], one array for each input.

    Raises:
        BoardError: QEMU or the board's program is missing.
        ConnectionLost: the board stops.
        DeviceError: the board refuses the model.
    """
    expected = model.run(arrays)
    if model.has_head:
        expected.append(_native.Head(model).logits(expected[0]))
    compared = differing = 0
    with QemuBoard(model.image) as board, progress_of("verification", len(arrays[0])) as advance:
        device = Device(board)
        for index, sample in enumerate(zip(*arrays, strict=True)):
            if device.info.has_states:
                # As on the host, each sample starts with reset states.
                device.reset_states()
            prediction = device.predict(dict(zip(model.input_names, sample, strict=True)))
            found = [*prediction.outputs.values(), *([prediction.logits] if model.has_head else [])]
            for array, other in zip(expected, found, strict=True):
                compared += array[index].nbytes
                differing += differing_bytes(array[index], other)
            advance(1)
    return VerifyReport("rv32imc", len(arrays[0]), compared, differing, None)
