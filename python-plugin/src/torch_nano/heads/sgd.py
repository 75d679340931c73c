"""Stochastic gradient descent: nano-core's SgdHead as an nn.Module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _native
from ..arguments import TensorOrArray, as_tensors, check_tensor, shown, whole_number
from ..errors import HeadError
from .head import Head, Labels, Targets

#: Units per 1 of a squared-error target.
VALUE_STEPS = 4096


class SgdHead(Head):
    """A linear layer on int8 features that learns by stochastic gradient descent in integers.

    nano-core (`train::SgdHead`) documents the arithmetic. The loss in its image (see
    :class:`torch_nano.heads.SGD`) says what a target is: the right class, an int; all right classes, bool
    [classes]; or a number, a float.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(learning_rate=0.05, halve_every=8))
    >>> nano.head.fit(nano.features_int8(x), y, epochs=16)
    >>> nano.head
    SgdHead(features=8, classes=3)
    """

    name = "sgd_head"
    #: Whether the latest :meth:`fit` was taken back by the guard (:class:`torch_nano.heads.SGD`).
    taken_back: bool = False

    def predict(self, features: TensorOrArray) -> Tensor:
        """int64 classes [N] (the largest logit, the first of equal ones); for loss "binary" bool [N,
        classes]; for "squared" float32 [N].

        Raises:
            HeadError: wrong shape or dtype.
        """
        match self._head.target:
            case "labels":
                return self.logits(features) > 0
            case "value":
                outputs: Tensor = self(features)
                return outputs[:, 0]
        return super().predict(features)

    def step(self, features: TensorOrArray, target: int | float | TensorOrArray) -> None:
        """One step of gradient descent on one sample, int8 [features].

        Raises:
            HeadError: wrong shape, dtype or target; the head is then unchanged.
        """
        features = self._checked(features, "[features]", 1)
        if self._head.target == "class":
            number = whole_number("label", target, most=self.classes - 1)
        else:
            expected = f"bool [{self.classes}]" if self._head.target == "labels" else "a number"
            try:
                given = torch.as_tensor(target)
            except (TypeError, ValueError, RuntimeError) as error:
                raise HeadError(f"target is {shown(target)}; expected {expected}") from error
            (number,) = self._targets(features[None], given[None]).tolist()
        self._head.step(features.cpu().contiguous().numpy(), number)

    def fit(self, features: TensorOrArray, targets: Labels, epochs: int = 1, *, first_epoch: int = 0) -> None:
        """Trains for `epochs` epochs on samples int8 [N, features] with targets [N] (bool [N, classes] for
        loss "binary"), in the device's order.

        A device whose ring holds exactly these samples does the same. (nn.Module has the name `train`.) With
        a guard, :attr:`taken_back` then says whether the head is the one before.

        Args:
            first_epoch: number of epochs of the same training before this call, on which the learning rate
                may depend (:class:`torch_nano.heads.SGD`, `halve_every`).

        Raises:
            HeadError: wrong shape, dtype, target or number of epochs (with those before at most 1,000,000);
                the head is then unchanged, as it is after Ctrl-C.
        """
        features = self._samples(features)
        numbers = self._targets(features, targets)
        epochs = whole_number("epochs", epochs, least=1, most=_native.LARGEST_EPOCHS)
        first_epoch = whole_number("first_epoch", first_epoch, most=_native.LARGEST_EPOCHS - epochs)
        self.taken_back = self._head.train(features.cpu().contiguous().numpy(), numbers, epochs, first_epoch)

    def _targets(self, features: Tensor, targets: Any) -> Targets:
        """The targets in nano-core's form."""
        if self._head.target == "class":
            return self._classes_of(features, targets)
        targets = as_tensors(targets)
        check_tensor("targets", targets)
        labels = self._head.target == "labels"
        shape = (len(features), self.classes) if labels else (len(features),)
        if tuple(targets.shape) != shape or targets.is_complex() or (targets.dtype == torch.bool) != labels:
            raise HeadError(
                f"targets have shape {tuple(targets.shape)} and dtype {targets.dtype}; "
                f"expected {'bool' if labels else 'numbers'} {list(shape)}"
            )
        given: Any = targets.cpu().numpy()
        if labels:
            return np.asarray(given @ (1 << np.arange(self.classes)), np.int64)
        steps = np.rint(given.astype(np.float64) * VALUE_STEPS)
        if not (np.abs(steps) < 2**31).all():
            raise HeadError(f"targets up to {np.abs(given).max()}; expected finite numbers, around 1")
        return np.asarray(steps, np.int64)
