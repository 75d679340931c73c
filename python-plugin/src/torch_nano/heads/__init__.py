"""Trainable heads: their settings for :func:`torch_nano.to_nano`, and the heads as nn.Modules."""

from .. import _native
from .head import Certainty, Head, SumsHead, checked_image, native_head
from .layers import LayersHead
from .lda import LdaHead
from .prototype import PrototypeHead
from .rate import AutoRate
from .rejection import Rejection
from .settings import LDA, SGD, HeadSettings, Prototype
from .sgd import SgdHead
from .start import Start

__all__ = [
    "LDA",
    "SGD",
    "AutoRate",
    "Certainty",
    "Head",
    "HeadSettings",
    "LayersHead",
    "LdaHead",
    "Prototype",
    "PrototypeHead",
    "Rejection",
    "SgdHead",
    "Start",
    "SumsHead",
    "head_of",
]

_ALL: tuple[type[Head], ...] = (SgdHead, LayersHead, LdaHead, PrototypeHead)
_HEADS = {head.__name__: head for head in _ALL}


def head_of(image: bytes | _native.Model) -> Head:
    """The head of an image (bytes, or checked), of any trainer, in its initial state.

    Raises:
        HeadError: the image has no head.
    """
    checked = checked_image(image)
    return _HEADS[native_head(checked).trainer](checked)
