"""What a head of sums knows when it is shipped: setting, and the statistics that its image holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from ..arguments import TensorOrArray, positive_number, shown
from ..errors import HeadError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Start:
    """Lets a head start from what the factory's samples say: :class:`torch_nano.heads.LDA` and
    :class:`torch_nano.heads.Prototype`.

    Until an LdaHead has learnt, it is the layer that is shipped; a PrototypeHead finds the nearest of the
    factory's means. Then the factory's means, and the LdaHead's spread, count as some samples of each class,
    which the user's samples move. On the device a mean counts the less, the farther this user's classes are
    from the factory's (nano-core's `train::start` has the formula), and what all classes have moved by also
    moves those that the user has not taught.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y, wearer = torch.randn(90, 4), torch.arange(90) % 3, torch.arange(90) // 30
    >>> start = tn.heads.Start((x, y), groups=wearer)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(start=start))
    >>> bool((nano.head.predict(nano.features_int8(x)) == nano(x).argmax(1)).all())
    True

    Args:
        data: the factory's samples: a pair (x, y) of inputs and classes (indices), a dataset, or a loader.
            They should not be those of the calibration alone: 10 or more of each class.
        groups: whom each sample is from, [N], in the order of the data: users, devices, sessions. The spread
            is then that within a class of one group, as a user's is, and :func:`torch_nano.to_nano` chooses
            the strengths that are left open by leaving groups out, up to eight of them: a head starts from
            the others' samples, learns 1, 2, 5 and 10 of each class from the first half of the group's, and
            is scored on the rest. None: unknown.
        means: number of samples that the mean of a class counts as if the user's classes are as far from
            the factory's as samples are from their class; above 0, at most 4. None: chosen, or 0.5 without
            groups.
        spread: number of samples of each class that the spread counts as; above 0, at most 256 in all
            classes. None: chosen, or 2 without groups. A PrototypeHead has none.

    Raises:
        HeadError: wrong strengths or groups.
    """

    data: Iterable[Any] | Dataset[Any] = field(repr=False)
    groups: TensorOrArray | Sequence[Any] | None = field(default=None, repr=False)
    means: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        for name in ("means", "spread"):
            strength = getattr(self, name)
            if strength is not None:
                object.__setattr__(self, name, positive_number(name, strength))
        if self.groups is not None and not hasattr(self.groups, "__len__"):
            raise HeadError(f"groups is {shown(self.groups)}; expected one name or number for each sample")


@dataclass(frozen=True)
class Layer:
    """The layer that is shipped: real weights [C, F] and biases [C]."""

    weights: Floats
    biases: Floats


@dataclass(frozen=True)
class Factory:
    """The factory's samples as a head sees them: int8 features [N, F], classes [N], and groups [N], numbered
    from 0, if they are known."""

    features: npt.NDArray[np.int8]
    classes: Ints
    groups: Ints | None

    def without(self, group: int) -> Factory:
        """The samples of the other groups."""
        assert self.groups is not None
        kept = self.groups != group
        return Factory(self.features[kept], self.classes[kept], self.groups[kept])

    def description(self, layer: Layer, zero_point: int, means: float, spread: float) -> dict[str, Any]:
        """What nano-core's writer takes.

        Args:
            layer: the one that is shipped.
            zero_point: of the features.
            means: strength of the means; `spread` likewise.

        Raises:
            HeadError: a class has no samples, or no class has two.
        """
        x = self.features.astype(np.float64) - zero_point
        count = np.bincount(self.classes, minlength=len(layer.biases))
        if not count.all():
            raise HeadError(
                f"class {int(count.argmin())} has no samples in the start's data; expected some of each class"
            )
        sums = np.zeros((len(count), x.shape[1]))
        np.add.at(sums, self.classes, x)
        return {
            "means": (sums / count[:, None]).astype(np.float32),
            "covariance": self._covariance(x).astype(np.float32),
            "weights": layer.weights,
            "biases": layer.biases,
            "mean_strength": means,
            "spread_strength": spread,
        }

    def _covariance(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[F, F], within a class of a group."""
        cells = self.classes
        if self.groups is not None:
            cells = cells * (int(self.groups.max()) + 1) + self.groups
        _, cell, count = np.unique(cells, return_inverse=True, return_counts=True)
        freedom = len(x) - len(count)
        if freedom == 0:
            raise HeadError(
                f"the start has {len(x)} samples, and no two of one class"
                f"{'' if self.groups is None else ' and group'}; expected several: their spread is needed"
            )
        means = np.zeros((len(count), x.shape[1]))
        np.add.at(means, cell, x)
        deviations = x - (means / count[:, None])[cell]
        return deviations.T @ deviations / freedom
