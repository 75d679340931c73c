"""Input tensors of a model's call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..arguments import TensorOrArray
from .models import own_module

#: A tensor or array, several by position, or several by the names of forward's arguments.
Example = TensorOrArray | Sequence[TensorOrArray] | Mapping[str, TensorOrArray]


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call, by position and by name."""

    positional: tuple[Tensor, ...] = ()
    named: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return (*self.positional, *self.named.values())

    @property
    def only(self) -> Tensor | None:
        """The tensor, if there is exactly one, given by position."""
        return self.positional[0] if len(self.positional) == 1 and not self.named else None

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """These inputs with a function applied to each."""
        named = {name: function(tensor) for name, tensor in self.named.items()}
        return Inputs(tuple(map(function, self.positional)), named)

    def call(self, model: nn.Module) -> Any:
        """Calls the model with them."""
        return model(*self.positional, **self.named)

    def __str__(self) -> str:
        if self.only is not None:
            return f"an input of shape {tuple(self.only.shape)}"
        shapes = [str(tuple(tensor.shape)) for tensor in self.positional]
        shapes += [f"{name} {tuple(tensor.shape)}" for name, tensor in self.named.items()]
        return f"inputs of shapes {', '.join(shapes)}"


def call(model: nn.Module, x: Any) -> Any:
    """Calls a model with the inputs of a batch.

    Args:
        x: a tensor, :class:`Inputs`, several inputs in a tuple or list, or in a dict by the names of
            forward's arguments. A model whose forward does not take these arguments gets the container.
    """
    if isinstance(x, Inputs):
        return x.call(model)
    if isinstance(x, list | tuple) and _takes(model, x, {}):
        return model(*x)
    if isinstance(x, Mapping) and _takes(model, (), x):
        return model(**x)
    return model(x)


def _takes(model: nn.Module, positional: Sequence[Any], named: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(own_module(model).forward).bind(*positional, **named)
    except TypeError:
        return False
    return True
