"""Affine operators per channel, ``y = factor * x + shift``, such as the normalization of a model's input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .layer import Layer
from .operator import Operator


@dataclass(frozen=True)
class AffineOperator(Operator):
    """An operator that multiplies each channel by a factor and adds a shift.

    It never runs in integers: passes fold it into an input's scales or a layer's weights.
    """

    @abstractmethod
    def scale_and_shift(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The factor and the shift; float64, [channels], or [] or [1] for all channels."""

    def attributes(self, layer: Layer) -> dict[str, int]:
        raise TypeError(f"a {self.name} must be folded before it is quantized")

    def integer_run(self, layer: Layer) -> Tensor:
        raise TypeError(f"a {self.name} must be folded before it is quantized")


@dataclass(frozen=True)
class Affine:
    """An affine operator that is applied to an input before the network."""

    operator: AffineOperator
    #: Names in :attr:`Graph.parameters` by role.
    parameters: Mapping[str, str]
    #: Dotted path of the module that calls it.
    module_path: str

    def run(self, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Runs the operator in float, as the model does; `tensors` holds the parameters by name."""
        (y,) = Layer(self.operator, [x], self._roles(tensors)).float_run()
        return y

    def scale_and_shift(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See :meth:`AffineOperator.scale_and_shift`; `tensors` holds the parameters by name."""
        return self.operator.scale_and_shift(self._roles(tensors))

    def _roles(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {role: tensors[name] for role, name in self.parameters.items()}


def compose(
    affines: Iterable[Affine], tensors: Mapping[str, Tensor], channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The factor and the shift of consecutive affine operators; float64 [channels] each."""
    factor = torch.ones(channels, dtype=torch.float64, device=device)
    shift = torch.zeros_like(factor)
    for affine in affines:
        scale, offset = affine.scale_and_shift(tensors)
        factor, shift = factor * scale, shift * scale + offset
    return factor, shift
