"""Labelled samples as a head sees them: runs the backbone on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import HeadError, InputError
from ..heads.start import Factory, Ints
from ..training.data import batches_of, split_batch
from .nano_module import NanoModule

_BATCH = 256


def taught_samples(
    name: str, data: Iterable[Any] | Dataset[Any], groups: Any, nano: NanoModule, classes: int
) -> Factory:
    """The features, classes and groups of labelled inputs.

    Args:
        name: of the data in errors, such as "the start's data".
        groups: whom each sample is from, or None.
        nano: the model with the head.
        classes: the number of outputs of the layer.

    Raises:
        HeadError: wrong classes or groups.
        InputError: data of the wrong kind.
    """
    features, labels = [], []
    for batch in batches_of(data, batch_size=_BATCH, shuffle=False, name=name, names=nano.labels):
        x, y = split_batch(batch, f"a batch of {name}", nano.labels)
        inputs = x if isinstance(x, tuple | list) else () if isinstance(x, dict) else (x,)
        named = x if isinstance(x, dict) else {}
        features.append(nano.features_int8(*inputs, **named).cpu().numpy())
        y = torch.as_tensor(y)
        if y.shape != (len(features[-1]),) or y.is_floating_point() or y.dtype == torch.bool:
            raise InputError(
                f"a batch of {name} has labels of shape {tuple(y.shape)} and dtype {y.dtype}; "
                f"expected the classes of its {len(features[-1])} inputs, as integers"
            )
        labels.append(y.cpu().numpy().astype(np.int64))
    if not features:
        raise InputError(f"{name} has no samples; expected some of each class")
    label = np.concatenate(labels)
    if not (label.min() >= 0 and label.max() < classes):
        raise HeadError(
            f"{name} has classes from {label.min()} to {label.max()}; expected 0 to {classes - 1}, "
            "the outputs of the layer"
        )
    return Factory(np.concatenate(features), label, None if groups is None else _numbered(groups, len(label)))


def _numbered(groups: Any, samples: int) -> Ints:
    names = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if names.shape != (samples,):
        raise HeadError(
            f"groups has shape {tuple(names.shape)}; expected one name or number for each of the {samples} "
            "samples"
        )
    _, numbers = np.unique(names, return_inverse=True)
    if not numbers.any():
        raise HeadError(
            f"all samples are of the group {str(names[0])!r}; expected several groups, or groups=None"
        )
    return np.asarray(numbers, np.int64)
