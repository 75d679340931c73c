"""The nearest class mean: nano-core's PrototypeHead as an nn.Module."""

from __future__ import annotations

from ..arguments import TensorOrArray
from .head import Labels, SumsHead


class PrototypeHead(SumsHead):
    """A classifier by the nearest class mean: the cheapest to train, in one pass, in any order, exactly.

    A logit is minus the squared distance to the class's mean; a class without samples has -2^31 units.
    nano-core (`train::PrototypeHead`) documents the arithmetic and the limit of 2^16 samples per class.
    :meth:`forget` leaves nothing of a class but what a start (:class:`torch_nano.heads.Start`) says of it.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4).abs(), torch.arange(64) % 3
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.Prototype())
    >>> nano.head.fit(nano.features_int8(x), y)
    >>> nano.head
    PrototypeHead(features=8, classes=3, capacity=3)
    """

    name = "prototype_head"

    def fit(self, features: TensorOrArray, labels: Labels) -> None:
        """:meth:`learn`; nothing else is needed.

        Raises:
            HeadError: see :meth:`learn`.
        """
        self.learn(features, labels)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, capacity={self.capacity}"
