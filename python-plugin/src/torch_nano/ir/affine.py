"""What a model does to an input before all else, channel by channel: ``y = factor * x + shift``."""

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
    """An operator that multiplies each channel by a number and adds one. It never runs in integers: passes
    make it part of an input's scales, or of weights.
    """

    @abstractmethod
    def scale_and_shift(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What it multiplies each channel by, and then adds; float64, [channels], or [] or [1] for all."""

    def attributes(self, layer: Layer) -> dict[str, int]:
        raise TypeError(f"a {self.name} must be folded before it is quantized")

    def integer_run(self, layer: Layer) -> Tensor:
        raise TypeError(f"a {self.name} must be folded before it is quantized")


@dataclass(frozen=True)
class Affine:
    """One such operator in front of the network."""

    operator: AffineOperator
    #: Names in :attr:`Graph.parameters` by role.
    parameters: Mapping[str, str]
    #: Dotted path of the module that calls it.
    module_path: str

    def run(self, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """The float run, as the model computes it; tensors by name."""
        (y,) = Layer(self.operator, [x], self._roles(tensors)).float_run()
        return y

    def scale_and_shift(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See :meth:`AffineOperator.scale_and_shift`; tensors by name."""
        return self.operator.scale_and_shift(self._roles(tensors))

    def _roles(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {role: tensors[name] for role, name in self.parameters.items()}


def compose(
    affines: Iterable[Affine], tensors: Mapping[str, Tensor], channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The factor and the shift of affines in a row; float64 [channels] each."""
    factor = torch.ones(channels, dtype=torch.float64, device=device)
    shift = torch.zeros_like(factor)
    for affine in affines:
        scale, offset = affine.scale_and_shift(tensors)
        factor, shift = factor * scale, shift * scale + offset
    return factor, shift
