"""Evaluation of a device on labelled data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..arguments import class_index
from ..errors import InputError
from ..evaluation.evaluation import Evaluation, Predictions, names_of_classes
from .answers import Prediction
from .bars import Bars
from .samples import Input, Samples, batches

if TYPE_CHECKING:
    from .client import Device


def evaluate(device: Device, data: Input | Samples, labels: Any, progress: Bars) -> Evaluation:
    """See :meth:`torch_nano.Device.evaluate`.

    The data are read before the first prediction: the code that makes them may use the device, too.
    """
    info, names = device.info, device.labels
    if info.classes and info.target != "class":
        raise InputError(
            f"evaluate takes heads of one right class; this device's learns from {info.target!r}"
        )
    if not info.classes and len(info.outputs) > 1:
        raise InputError(
            f"the model returns {len(info.outputs)} outputs; evaluate takes a model that returns the scores "
            "of classes"
        )
    is_index = not info.classes and info.outputs[0].quantization.holds_indices
    classes = info.classes or (len(names) if is_index else info.outputs[0].elements)
    pairs = batches(data, labels, info.inputs, device._nano)
    samples = [(input, class_index(_plain(label), classes, names)) for input, label in pairs]
    if not samples:
        raise InputError("the evaluation data is empty; expected at least one sample")
    found: list[Prediction] = []
    with device._turn.lock, progress.bar("evaluate", len(samples)) as advance:
        for input, _ in samples:
            found.append(device._predict(input))
            advance(1)
    made = Predictions()
    truth = torch.tensor([label for _, label in samples])
    if is_index:
        scores = torch.tensor([each.label for each in found])
    else:
        rows = [each.logits if info.classes else each.output for each in found]
        scores = torch.from_numpy(np.stack(rows).astype(np.int64))
    rejects = info.classes > 0 and not all(each.known for each in found)
    known = torch.tensor([each.known for each in found]) if rejects else None
    made.add(scores, truth, known)
    return made.evaluation(f"{info.name} on the device", names_of_classes(names, classes))


def _plain(label: Any) -> Any:
    """A label of numpy or torch as Python's."""
    return label.tolist() if hasattr(label, "tolist") else label
