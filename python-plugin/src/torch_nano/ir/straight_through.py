"""The straight-through estimator: the numbers of the integer run, the gradient of the float run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .layer import Layer


def straight_through(layer: Layer) -> tuple[Tensor, ...]:
    """The training run of an operator by its integer run; see :meth:`Operator.train_run`.

    The custom operator ``torch_nano::train_exact`` computes the numbers, see
    :mod:`torch_nano.library.train_run`.
    """
    quantizations = (*layer.input_quantizations, *layer.output_quantizations)
    exact = torch.ops.torch_nano.train_exact(
        [x.detach() for x in layer.inputs],
        [parameter.detach() for parameter in layer.parameters.values()],
        list(layer.parameters),
        layer.operator.text,
        [quantization.scale for quantization in quantizations],
        [quantization.zero_point for quantization in quantizations],
        [quantization.dtype for quantization in quantizations],
    )
    real = Layer(layer.operator, layer.real_inputs(), layer.parameters).float_run()
    results = []
    for y, numbers, quantization in zip(real, exact, layer.output_quantizations, strict=True):
        low, high = quantization.levels
        inside = (y / quantization.scale).clamp(low - 0.5, high + 0.5)
        results.append(replace_forward(inside.to(numbers.dtype), numbers))
    return tuple(results)


def replace_forward(y: Tensor, exact: Tensor) -> Tensor:
    """`exact` in the forward pass; the gradient flows to `y`.

    >>> y = torch.tensor([1.25], requires_grad=True)
    >>> replace_forward(2 * y, torch.tensor([3.0])).backward()
    >>> y.grad
    tensor([2.])
    """
    return _ReplaceForward.apply(y, exact)  # type: ignore[no-any-return]


class _ReplaceForward(torch.autograd.Function):
    """``y + (exact - y).detach()``, without the rounding of that sum."""

    @staticmethod
    def forward(y: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
