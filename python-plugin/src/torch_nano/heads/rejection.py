"""The setting of what a head's predictions mean: calibrated confidence, and inputs of no known class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from .. import _native
from ..arguments import TensorOrArray, positive_number, shown, whole_number
from ..errors import HeadError


@dataclass(frozen=True, eq=False)
class Rejection:
    """Lets a head say how sure it is, and reject inputs of classes that it was never taught.

    :func:`torch_nano.to_nano` lets the head learn one part of the data and predict the other. From that it
    chooses a temperature, an integer by which logits are divided so that confidences are the rates of right
    predictions, and the largest distance between features and the nearest class mean at which the wanted part
    of the predictions is still accepted (nano-core's `train::Rejection` has the formula). The image holds
    both: the device, its replay and the exported crate use the same integers. Classes that the device learns
    as sums (LDA, Prototype) have the means of its own samples, so classes that are added are known, too.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> y = torch.arange(300) % 3
    >>> x = torch.randn(300, 6) + 4 * torch.eye(3).repeat(1, 2)[y]
    >>> held_out = tn.heads.Rejection((x, y), false_alarms=0.02)
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(), rejection=held_out)
    >>> nano.head.fit(nano.features_int8(x[:60]), y[:60])
    >>> bool(nano.head.certainty(nano.features_int8(20 * torch.ones(1, 6))).known)
    False

    Args:
        data: a pair (x, y) of inputs and classes (indices), a dataset, or a loader, with samples of each
            class. The backbone must not have been trained on them: features of its own training data are
            nearer to their means than a user's, and too many of those would be rejected.
        groups: whom each sample is from, [N], in the order of the data: users, devices, sessions. The head
            then learns the first of a group's samples of each class and predicts the others, and the limit is
            chosen so that the wanted part of them is accepted in groups that are left out. None: unknown; it
            then learns one half and predicts the other, twice.
        taught: the part of a group's samples that the head learns, between 0 and 1: as much of what a user
            does as the device will be taught. What users do later is less and less like it.
        false_alarms: the wanted part of a known class's inputs that is rejected, above 0 and at most 0.5.
        epochs: of a head that learns in epochs.

    Raises:
        HeadError: wrong groups, rate or number of epochs.
    """

    data: Iterable[Any] | Dataset[Any] = field(repr=False)
    groups: TensorOrArray | Sequence[Any] | None = field(default=None, repr=False)
    taught: float = 0.5
    false_alarms: float = 0.05
    epochs: int = 20

    def __post_init__(self) -> None:
        rate = positive_number("false_alarms", self.false_alarms)
        if rate > 0.5:
            raise HeadError(f"false_alarms is {rate}; expected a rate above 0, at most 0.5")
        object.__setattr__(self, "false_alarms", rate)
        part = positive_number("taught", self.taught)
        if part >= 1:
            raise HeadError(f"taught is {part}; expected a part between 0 and 1")
        object.__setattr__(self, "taught", part)
        most = _native.LARGEST_EPOCHS
        object.__setattr__(self, "epochs", whole_number("epochs", self.epochs, least=1, most=most))
        if self.groups is not None and not hasattr(self.groups, "__len__"):
            raise HeadError(f"groups is {shown(self.groups)}; expected one name or number for each sample")
