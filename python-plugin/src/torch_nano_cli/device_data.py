"""A device's labels, and samples for it from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch_nano import Device
from torch_nano.cli.labels import Labels
from torch_nano.cli.sample_files import SampleFile, SampleFileError, read_samples
from torch_nano.device import Prediction

#: Elements of an output that a line shows.
_MOST_NUMBERS = 8


def labels_of(device: Device) -> Labels:
    """The labels of the device's head; without one, of its outputs."""
    info = device.info
    return Labels(info.target, info.classes or info.outputs[0].elements, device.labels)


def outputs_shown(device: Device, made: Prediction) -> str:
    """The outputs of a prediction by name, in real numbers."""
    parts = []
    for value in device.info.outputs:
        real = value.real(made.outputs[value.name])
        more = " ..." if real.size > _MOST_NUMBERS else ""
        parts.append(f"{value.name}: {' '.join(f'{x:.4g}' for x in real[:_MOST_NUMBERS])}{more}")
    return "  ".join(parts)


def samples_of(device: Device, data: Path) -> SampleFile:
    """The samples of a file for the device's model."""
    names = [value.name for value in device.info.inputs]
    return read_samples(data, names if len(names) > 1 else ())


def inputs_of(device: Device, table: SampleFile) -> dict[str, NDArray[np.generic]]:
    """The inputs of a file by the model's names, in the shapes that the device's model has."""
    nano = device._nano
    inputs: dict[str, NDArray[np.generic]] = {}
    for value, (name, array) in zip(device.info.inputs, table.inputs.items(), strict=True):
        elements = array.size // len(array)
        called = "" if name == "x" else f" of {name}"
        if elements != value.elements:
            raise SampleFileError(
                f"{table.path}: each sample{called} has {elements} elements; the model takes {value.elements}"
            )
        if value.quantization.holds_indices:
            inputs[value.name] = table.indices(name)
            continue
        inputs[value.name] = array
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if nano is None:
            raise SampleFileError(
                f"{table.path} has floats; to turn them into the device's {value.dtype}, --model must be the "
                "file that nano.save wrote (.nanomodel)"
            )
        if array.ndim == 2:
            inputs[value.name] = array.reshape(len(array), *nano.input_shapes[value.name])
    return inputs
