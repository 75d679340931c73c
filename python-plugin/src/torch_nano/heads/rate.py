"""The setting of a learning rate that is chosen by what users' samples are like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from .. import _native
from ..arguments import TensorOrArray, shown, whole_number
from ..errors import HeadError


@dataclass(frozen=True, eq=False)
class AutoRate:
    """A learning rate as "auto" of :class:`torch_nano.heads.SGD`, which also fits a user's first samples.

    The device makes its rate of how much its samples agree. One sample of each class cannot say that: until
    there are more, the rate is one that :func:`torch_nano.to_nano` chooses with samples of other users. The
    head learns one sample of each class of a user, with each of seven rates, and is scored on the second
    half of that user's samples.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y, wearer = torch.randn(90, 4), torch.arange(90) % 3, torch.arange(90) // 30
    >>> rate = tn.heads.AutoRate((x, y), groups=wearer)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(rate, halve_every=4))

    Args:
        data: a pair (x, y) of inputs and classes (indices), a dataset, or a loader, with 4 or more samples of
            each class. The backbone must not have been trained on them: of its own training data it knows
            all, and the rate would be too low.
        groups: whom each sample is from, [N], in the order of the data; up to eight of them are tried. None:
            all are from one user.
        epochs: of a training.

    Raises:
        HeadError: wrong groups or number of epochs.
    """

    data: Iterable[Any] | Dataset[Any] = field(repr=False)
    groups: TensorOrArray | Sequence[Any] | None = field(default=None, repr=False)
    epochs: int = 20

    def __post_init__(self) -> None:
        most = _native.LARGEST_EPOCHS
        object.__setattr__(self, "epochs", whole_number("epochs", self.epochs, least=1, most=most))
        if self.groups is not None and not hasattr(self.groups, "__len__"):
            raise HeadError(f"groups is {shown(self.groups)}; expected one name or number for each sample")
