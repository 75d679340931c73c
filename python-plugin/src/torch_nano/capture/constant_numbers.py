"""Numbers that forward reads of tensors while torch.export runs: an if, .item(), float() or int().

torch.export cannot follow what depends on numbers. Those of parameters, buffers and constants are the same in
each run, so they are computed at once; all others are refused.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import UnsupportedError, UnsupportedNode
from .source_lines import user_line

#: Functions that return numbers of tensors -> how a message names them.
_READS: Mapping[Callable[..., Any], str] = {
    Tensor.__bool__: "bool(tensor), as of an if",
    Tensor.__float__: "float(tensor)",
    Tensor.__index__: "int(tensor)",
    Tensor.__int__: "int(tensor)",
    Tensor.allclose: "torch.allclose",
    Tensor.equal: "torch.equal",
    Tensor.is_nonzero: "torch.is_nonzero",
    Tensor.item: "tensor.item()",
    Tensor.numpy: "tensor.numpy()",
    Tensor.tolist: "tensor.tolist()",
    torch.allclose: "torch.allclose",
    torch.equal: "torch.equal",
    torch.is_nonzero: "torch.is_nonzero",
}
#: Functions that make tensors of numbers, the same in each run.
_CONSTANTS: frozenset[Any] = frozenset(
    {
        torch.arange,
        torch.as_tensor,
        torch.eye,
        torch.full,
        torch.linspace,
        torch.logspace,
        torch.ones,
        torch.tensor,
        torch.zeros,
    }
)
#: Functions with other results in each run.
_RANDOM: frozenset[Any] = frozenset(
    {
        Tensor.bernoulli,
        Tensor.multinomial,
        torch.bernoulli,
        torch.multinomial,
        torch.normal,
        torch.rand,
        torch.rand_like,
        torch.randint,
        torch.randint_like,
        torch.randn,
        torch.randn_like,
        torch.randperm,
    }
)
_OF_INPUT = (
    "what forward does next depends on numbers of the input; the device makes the same calls for every input",
    "compute both results, and mix them by a function of one variable: "
    "s = torch.sigmoid(x.mean(1, keepdim=True)); s * a + (1 - s) * b",
)
_DRAWN = (
    "it reads a number that forward draws; the device computes the same for the same input",
    "draw it once, outside of forward, and keep it as a buffer",
)
_CHANGED = (
    "it reads a number of a tensor that forward has changed in place",
    "use the calls that are not in place, such as x + 1 for x.add_(1)",
)
_OF_TRAINED = (
    "it reads a number of a parameter that is trained; QAT would keep the number that it has now",
    "compute with the parameter itself, x * self.scale, or make it a buffer",
)


class ConstantNumbers(TorchFunctionMode):
    """Returns the numbers of tensors that are the same in each run, and refuses to read others.

    Args:
        model: its parameters and buffers have numbers.
        training: refuse numbers of parameters that require gradients.
    """

    def __init__(self, model: nn.Module, *, training: bool) -> None:
        super().__init__()
        self.model, self.training = model, training
        self.real = dict(_tensors(model))
        #: By the identity of a tensor: it, its version, which counts changes in place, the call that made it
        #: (None: it is random), and its place among the results of that call. The tensors are kept so that no
        #: other gets their identity.
        self.made: dict[int, tuple[Tensor, int, tuple[Any, Any, Any] | None, int | None]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _READS:
            return self._read(function, args, kwargs)
        result = function(*args, **kwargs)
        given = _tensors_in((args, kwargs))
        is_random = function in _RANDOM
        if given or is_random or function in _CONSTANTS:
            known = {id(tensor) for tensor in given}
            results: Iterable[tuple[int | None, Any]] = (
                enumerate(result) if isinstance(result, tuple | list) else [(None, result)]
            )
            for index, tensor in results:
                # A result that is an argument was changed in place.
                if isinstance(tensor, Tensor) and id(tensor) not in known:
                    call = None if is_random else (function, args, kwargs)
                    self.made[id(tensor)] = tensor, tensor._version, call, index
        return result

    def _read(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # torch.export has put stand-ins without numbers into the model.
        names = {id(tensor): name for name, tensor in _tensors(self.model)}
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            try:
                return function(*self._numbers(args, names), **self._numbers(kwargs, names))
            except _NoConstantError as error:
                reason = error.args[0]
        line = user_line([(at.filename, at.lineno or 0) for at in traceback.extract_stack()])
        read = f"{_READS[function]}{' in train mode' if self.training else ''}"
        raise UnsupportedError([UnsupportedNode("", line, read, *reason)])

    def _numbers(self, arguments: Any, names: Mapping[int, str]) -> Any:
        """Arguments of a call with real tensors."""

        def real(argument: Any) -> Any:
            if isinstance(argument, torch.SymInt | torch.SymFloat | torch.SymBool):
                raise _NoConstantError(_OF_INPUT)
            if not isinstance(argument, Tensor):
                return argument
            if (name := names.get(id(argument))) is not None:
                found = self.real[name]
                if argument._version:
                    raise _NoConstantError(_CHANGED)
                if self.training and found.requires_grad:
                    raise _NoConstantError(_OF_TRAINED)
                return found
            if id(argument) not in self.made:
                raise _NoConstantError(_OF_INPUT)
            made, version, call, index = self.made[id(argument)]
            if made._version != version:
                raise _NoConstantError(_CHANGED)
            if call is None:
                raise _NoConstantError(_DRAWN)
            function, args, kwargs = call
            result = function(*self._numbers(args, names), **self._numbers(kwargs, names))
            return result if index is None else result[index]

        return pytree.tree_map(real, arguments)


class _NoConstantError(Exception):
    """A tensor has other numbers in each run; its argument is the reason and the way out."""


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _tensors_in(arguments: Any) -> list[Tensor]:
    return [argument for argument in pytree.tree_leaves(arguments) if isinstance(argument, Tensor)]
