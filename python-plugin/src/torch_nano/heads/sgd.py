"""The trainable head: nano-core's SgdHead as an nn.Module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import _native
from ..errors import HeadError


class SgdHead(nn.Module):
    """A linear softmax classifier on int8 features that learns in integers, exactly as on the device.

    Two heads of one image that take the same steps hold the same bytes, here and on any device. The
    arithmetic is documented in nano-core (`train::SgdHead`). Features are int8 [N, features] in the device's
    order, as :meth:`torch_nano.NanoModule.features_int8` gives them. It has no float parameters: autograd and
    optimizers do not apply.

    Args:
        image: a `.nano` image with a trainable head.

    Raises:
        HeadError: the image has none.
    """

    def __init__(self, image: bytes) -> None:
        super().__init__()
        self._image = image
        try:
            self._head = _native.SgdHead(image)
        except _native.NanoError as error:
            raise HeadError(f"this image gives no trainable head: {error}") from error

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._head.classes

    @property
    def features(self) -> int:
        """Number of features."""
        return self._head.features

    def forward(self, features: Tensor) -> Tensor:
        """float32 logits [N, classes]: the integer logits in real numbers."""
        return self.logits(features).float() * self._head.logit_scale

    def logits(self, features: Tensor) -> Tensor:
        """int32 logits [N, classes] for int8 features [N, features].

        Raises:
            HeadError: wrong shape or dtype.
        """
        self._check(features, "[N, features]", 2)
        return torch.from_numpy(self._head.logits(features.cpu().contiguous().numpy())).to(features.device)

    def predict(self, features: Tensor) -> Tensor:
        """int64 classes [N]: the largest logit, the first of equals.

        Raises:
            HeadError: wrong shape or dtype.
        """
        # numpy's argmax, unlike torch's, promises the first of equals.
        return torch.from_numpy(self.logits(features).cpu().numpy().argmax(1)).to(features.device)

    def step(self, features: Tensor, label: int) -> None:
        """One step of gradient descent on one sample, int8 [features].

        Raises:
            HeadError: wrong shape, dtype or label; the head is then unchanged.
        """
        self._check(features, "[features]", 1)
        try:
            self._head.step(features.cpu().contiguous().numpy(), label)
        except (_native.NanoError, OverflowError) as error:
            raise HeadError(f"label {label}: {error}; expected 0 to {self.classes - 1}") from error

    def fit(self, features: Tensor, labels: Tensor, epochs: int = 1) -> None:
        """`epochs` passes over samples int8 [N, features] with integer labels [N], each in the device's own
        order.

        It is what a device does whose ring holds exactly these samples. (`train` is nn.Module's.)

        Raises:
            HeadError: wrong shape, dtype, label or number of epochs; the head is then unchanged.
        """
        self._check(features, "[N, features]", 2)
        integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if not integers or labels.shape != features.shape[:1]:
            raise HeadError(
                f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; "
                f"expected integers [{len(features)}]"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise HeadError(
                f"labels go from {labels.min()} to {labels.max()}; expected 0 to {self.classes - 1}"
            )
        if not 0 <= epochs < 2**32:
            raise HeadError(f"epochs is {epochs}; expected 0 or more")
        self._head.train(features.cpu().contiguous().numpy(), labels.cpu().numpy().astype("uint16"), epochs)

    def state(self) -> bytes:
        """The whole state, as a device stores and sends it."""
        return self._head.state()

    def load(self, state: bytes) -> None:
        """Takes over a state that :meth:`state` or a device gave.

        Raises:
            HeadError: it is not one of this head; the head is then unchanged.
        """
        try:
            self._head.load(state)
        except _native.NanoError as error:
            raise HeadError(f"{len(state)} bytes are no state of this head: {error}") from error

    def reset(self) -> None:
        """Back to the state in the image."""
        self._head.reset()

    def get_extra_state(self) -> Tensor:
        """The state as uint8, for `state_dict()`."""
        return torch.frombuffer(bytearray(self.state()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Undoes :meth:`get_extra_state`, for `load_state_dict()`."""
        self.load(state.cpu().numpy().tobytes())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_head": self.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_head": _native.SgdHead(state["_image"])})
        self._head.load(state["_head"])

    def extra_repr(self) -> str:
        return f"features={self.features}, classes={self.classes}"

    def _check(self, features: Tensor, shape: str, rank: int) -> None:
        if features.dtype != torch.int8 or features.dim() != rank or features.shape[-1] != self.features:
            raise HeadError(
                f"features have shape {tuple(features.shape)} and dtype {features.dtype}; "
                f"expected int8 {shape} with {self.features} features"
            )
