"""The device's operators as functions: int8 arithmetic, bit for bit nano-core's, with gradients.

Tensors are float32 that holds integers; a :class:`~torch_nano.arithmetic.quantization.Quantization` has their
scale and zero point. Each function calls its custom operator ``torch.ops.torch_nano.<name>``: nano-core's
kernel on the CPU, torch elsewhere. ``lstm``, which has two results, is torch everywhere.

>>> import torch
>>> from torch_nano import functional
>>> from torch_nano.arithmetic.quantization import Quantization
>>> x = torch.tensor([[-8.0, 0.0, 8.0]], requires_grad=True)
>>> y = functional.sigmoid(x, Quantization(0.25, 0), Quantization(1 / 256, -128))
>>> y
tensor([[-97.,   0.,  97.]], grad_fn=<_StraightThroughBackward>)
>>> y.sum().backward()
>>> x.grad
tensor([[ 6.7196, 16.0000,  6.7196]])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .ops import FUNCTIONS as _FUNCTIONS

__all__ = sorted(_FUNCTIONS)
globals().update(_FUNCTIONS)

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Callable[..., Any]: ...
