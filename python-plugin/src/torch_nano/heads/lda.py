"""Linear discriminant analysis: nano-core's LdaHead as an nn.Module."""

from __future__ import annotations

from ..arguments import TensorOrArray
from .head import Labels, SumsHead


class LdaHead(SumsHead):
    """A classifier by linear discriminant analysis that learns in one pass, in any order, exactly.

    :meth:`learn` adds to sums; :meth:`commit` solves for the weights, after which the logits include what was
    learnt. nano-core (`train::LdaHead`) documents the arithmetic, and the halving of full sums. A class
    without samples has the logit -2^31. :meth:`forget` leaves a class's share of the covariance;
    :meth:`unlearn` removes that, too. With a start (:class:`torch_nano.heads.Start`) the head is the shipped
    layer until the first :meth:`commit` after :meth:`learn`; a class that is forgotten is then again what the
    factory knows of it.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4).abs(), torch.arange(64) % 3
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(capacity=5))
    >>> head, features = nano.head, nano.features_int8(x)
    >>> head.fit(features, y)
    >>> head
    LdaHead(features=8, classes=3, capacity=5)
    >>> other = tn.heads.LdaHead(nano.image)
    >>> other.fit(features.flip(0), y.flip(0))
    >>> other.state() == head.state()
    True
    """

    name = "lda_head"

    def commit(self) -> None:
        """Solves for the weights of all that was learnt."""
        self._head.commit()

    def fit(self, features: TensorOrArray, labels: Labels) -> None:
        """:meth:`learn`, then :meth:`commit`.

        Raises:
            HeadError: see :meth:`learn`.
        """
        self.learn(features, labels)
        self.commit()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, capacity={self.capacity}"
