"""An ATen call of an exported model, before it becomes an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arithmetic.layout import Shape
from .value import Value

if TYPE_CHECKING:
    from .operator import Operator


class UnsupportedNodeError(Exception):
    """Raised by :meth:`Operator.from_call` for an ATen call; capture collects all of them.

    ``reason`` says what is not supported, ``way_out`` what the user can write instead ("" if nothing).
    """

    def __init__(self, reason: str, way_out: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.way_out = way_out


#: Stands for an argument that is the batch size, or computed from it.
BATCH_SIZE = object()


class ParameterName(str):
    """Name of a parameter or buffer of the original model."""


class ComputedName(str):
    """Name of a tensor that the model computes of its parameters and buffers alone."""


#: ATen calls on a tensor with batch that only move data, as text: ``"permute(dims=[0, 2, 1])"``;
#: ``"reshape(4, 3)"`` takes the sides of a sample.
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Moved:
    """A value that is moved before an operator reads it; :meth:`Operator.from_call` returns it as an input.

    An operator computes one canonical form, such as over the channels of each pixel. For a call in another
    form it moves the inputs to this form, and moves the result back with :class:`MovedBack`. Passes remove
    moves that cancel.
    """

    value: Value
    steps: Steps


@dataclass(frozen=True)
class MovedBack:
    """An operator whose results are moved after it; :meth:`Operator.from_call` returns it as the operator."""

    operator: Operator
    #: The steps for each result; () for one that is not moved.
    steps: tuple[Steps, ...]


@dataclass(frozen=True)
class Call:
    """An ATen call that is converted to an operator.

    ``arguments`` holds all arguments by the name of the operator's schema, defaults filled in; tensors of the
    run stand there as :class:`Value`, parameters and buffers as :class:`ParameterName`, what the
    model computes of these as :class:`ComputedName`.
    """

    target: torch._ops.OpOverload[..., Any]
    arguments: Mapping[str, Any]
    #: Shape of each result, without the batch dimension.
    output_shapes: Sequence[Shape]
    #: Tensors of the model by name (parameters, buffers, constants).
    tensors: Mapping[str, Tensor]

    @property
    def output_shape(self) -> Shape:
        """Shape of the result of a call with a single result."""
        (only,) = self.output_shapes
        return only

    @property
    def returns_several(self) -> bool:
        """Whether it returns a list of tensors."""
        return str(self.target._schema.returns[0].type).startswith("List")

    @property
    def function(self) -> str:
        """ATen's name of the called function: "relu" for relu_.default."""
        return self.target._schema.name.removeprefix("aten::").removesuffix("_")

    def input(self, name: str) -> Value:
        """The argument `name`, which must be a tensor of the run.

        Raises:
            UnsupportedNodeError: it is not.
        """
        return _of_the_run(name, self.arguments[name])

    def parameters(self, *roles: str) -> dict[str, str]:
        """The names by role of the arguments that are parameters, or computed of parameters alone; those that
        the call leaves out are missing.

        Raises:
            UnsupportedNodeError: one is computed from the model's input.
        """
        names: dict[str, str] = {}
        for role in roles:
            given = self.arguments.get(role)
            if isinstance(given, ParameterName | ComputedName):
                names[role] = str(given)
            elif given is not None:
                raise UnsupportedNodeError(
                    f"its {role} is computed from the model's input",
                    f"make the {role} a parameter",
                )
        return names

    def inputs(self, name: str) -> list[Value]:
        """The argument `name`, a list of tensors, each of which must be one of the run.

        Raises:
            UnsupportedNodeError: one is not.
        """
        return [_of_the_run(f"{name}[{index}]", value) for index, value in enumerate(self.arguments[name])]


def _of_the_run(name: str, value: object) -> Value:
    if not isinstance(value, Value):
        raise UnsupportedNodeError(
            f"its {name} is not computed from the model's input", "compute it once, outside of forward"
        )
    return value
