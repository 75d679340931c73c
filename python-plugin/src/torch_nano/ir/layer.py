"""One layer: an operator with the arguments of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization

if TYPE_CHECKING:
    from .operator import Operator, Outputs


@dataclass(frozen=True)
class Layer:
    """An operator with its inputs, parameters, quantizations and shapes. Each run uses only some of them.

    Its methods run the operator, and always return a tuple of outputs.

    >>> import torch
    >>> from torch_nano.ops.add import Add
    >>> Layer(Add(clamp_low=0.0), [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])]).float_run()
    (tensor([[4., 0.]]),)
    """

    operator: Operator
    #: Inputs in torch's layout with batch: real numbers for the float run, integers for the integer run,
    #: ``q - zero_point`` in floats for the training run.
    inputs: Sequence[Tensor] = ()
    #: Real numbers by role ("weight", "bias"), for the float and training runs, and for quantization.
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    #: The tensors from :meth:`quantize`, for the integer run.
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    #: One for each input and output; empty for the float run.
    input_quantizations: Sequence[Quantization] = ()
    output_quantizations: Sequence[Quantization] = ()
    #: Shapes of the inputs if there are no input tensors; see :attr:`input_shapes`.
    shapes: Sequence[Shape] = ()
    #: For quantization, the mean of each input over the calibration data, real numbers [*shape]; empty if
    #: unknown.
    means: Sequence[Tensor] = ()

    @property
    def input(self) -> Tensor:
        """The input of an operator with a single input."""
        (only,) = self.inputs
        return only

    @property
    def input_shapes(self) -> Sequence[Shape]:
        """Shape of each input, without batch."""
        return self.shapes or [tuple(x.shape[1:]) for x in self.inputs]

    @property
    def input_quantization(self) -> Quantization:
        """The quantization of the input of an operator with a single input."""
        (only,) = self.input_quantizations
        return only

    @property
    def output_quantization(self) -> Quantization:
        """The quantization of the output of an operator with a single output."""
        (only,) = self.output_quantizations
        return only

    def float_run(self) -> tuple[Tensor, ...]:
        """See :meth:`Operator.float_run`."""
        return _as_tuple(self.operator.float_run(self))

    def observed(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See :meth:`Operator.observed`."""
        return self.operator.observed(self, outputs)

    def integer_run(self) -> tuple[Tensor, ...]:
        """See :meth:`Operator.integer_run`."""
        return _as_tuple(self.operator.integer_run(self))

    def train_run(self) -> tuple[Tensor, ...]:
        """See :meth:`Operator.train_run`."""
        return _as_tuple(self.operator.train_run(self))

    def quantize(self) -> dict[str, Tensor]:
        """See :meth:`Operator.quantize`."""
        return self.operator.quantize(self)

    def attributes(self) -> dict[str, int]:
        """See :meth:`Operator.attributes`."""
        return self.operator.attributes(self)

    def real_inputs(self) -> list[Tensor]:
        """The inputs of a training run as real numbers."""
        return [
            x * quantization.scale
            for x, quantization in zip(self.inputs, self.input_quantizations, strict=True)
        ]


def _as_tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
