"""A model that runs step by step over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import _native
from ..arguments import as_tensors, bind, check_tensor, names_of
from ..arithmetic.layout import to_device
from ..arithmetic.tensors import dequantize_tensor
from ..errors import HeadError, InputError

if TYPE_CHECKING:
    from .nano_module import NanoModule

#: Numbers over time.
Samples = Tensor | NDArray[Any]


class Stream:
    """A model that runs step by step: each step returns what the model returns for the latest window.

    Made by :meth:`NanoModule.stream`. It starts in the state after endless zeros (the inputs' zero points).
    Streams of one model share its image and its head, but no state.

    >>> import torch, torch_nano as tn
    >>> _ = torch.manual_seed(0)
    >>> layers = [torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool1d(2)]
    >>> model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x = torch.randn(32, 2, 8)
    >>> nano = tn.to_nano(model, x, calibrate=x)
    >>> stream = nano.stream()
    >>> stream.step_length
    2
    >>> for step in x[0].split(stream.step_length, 1):
    ...     y = stream.step(step)
    >>> torch.equal(y, nano(x[:1])[0])
    True
    """

    #: The streaming model, to save, export and flash; each call of it is the first step of a new stream.
    nano: NanoModule

    def __init__(self, nano: NanoModule, model: _native.Model) -> None:
        self.nano = nano
        self._running = _native.Stream(model)
        graph = nano.graph.graph
        self._returned = graph.returned
        self._inputs, self._outputs = (
            [graph.values[name] for name in names] for names in (graph.inputs, graph.outputs)
        )

    @property
    def step_length(self) -> int:
        """Samples of a step: the least common multiple of the strides of all values on the time axis.

        So each value gets at least one new row per step. A value's stride is the number of samples from one
        of its rows to the next.
        """
        return max(value.shape[-1] for value in self._inputs if len(value.shape) > 1)

    def reset(self) -> None:
        """Resets the states to those after endless zeros. The head keeps what it has learnt."""
        self._running.reset()

    def step(self, *inputs: Samples, **named: Samples) -> Any:
        """Runs one step; returns the real outputs for the latest window, without batch.

        Args:
            inputs: floats of the shape of an input, with step_length samples in place of the window's:
                [channels, step_length]; or [channels] if a step is one sample.

        Returns:
            float32 [K] for a vector; [K, rows] for a value on the time axis, the rows of this step.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity. The stream is unchanged.
        """
        outputs = self._step(self._integers(inputs, named, float))
        if self.nano.head is not None:
            return self._returned.pack([self.nano.head(to_device(outputs[0]))[0]])
        pairs = zip(outputs, self.nano.output_quantizations.values(), strict=True)
        return self._returned.pack([dequantize_tensor(y, quantization)[0] for y, quantization in pairs])

    def step_int8(self, *inputs: Samples, **named: Samples) -> Any:
        """As :meth:`step`, with inputs and outputs in integers of their dtypes (int8, unless a quantization
        says another), or the int32 logits of a trainable head.

        Raises:
            InputError: wrong inputs, shape or dtype.
        """
        outputs = self._step(self._integers(inputs, named, int))
        if self.nano.head is not None:
            return self._returned.pack([self.nano.head.logits(to_device(outputs[0]))[0]])
        return self._returned.pack([y[0] for y in outputs])

    def step_features(self, *inputs: Samples, **named: Samples) -> Tensor:
        """Runs one step; returns the features, int8 [1, features], for `fit` and `step` of the head.

        Args:
            inputs: floats or integers.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
            HeadError: there is no trainable head.
        """
        if self.nano.head is None:
            raise HeadError("this model has no trainable head; to_nano(..., head=...) says when it gets one")
        return to_device(self._step(self._integers(inputs, named, float, int))[0])

    def _integers(self, inputs: Sequence[Samples], named: dict[str, Samples], *kinds: type) -> list[Tensor]:
        """The checked inputs of one step as integers with a batch of one."""
        steps = []
        given = bind([value.name for value in self._inputs], inputs, named)
        for value, x in zip(self._inputs, given, strict=True):
            name, shape = value.name, value.user_shape
            x = as_tensors(x)
            check_tensor(name, x, error=InputError)
            time = len(shape) - 1 if value.layout is None else value.layout.last
            without_time = (*shape[:time], *shape[time + 1 :]) if time is not None else ()
            if len(value.shape) > 1 and value.shape[-1] == 1 and tuple(x.shape) == without_time:
                x = x.reshape(shape)
            dtype = self.nano.input_quantizations[name].torch_dtype
            right = (x.is_floating_point() and float in kinds) or (x.dtype == dtype and int in kinds)
            if not right or tuple(x.shape) != shape:
                expected = names_of(kinds, dtype)
                raise InputError(
                    f"a step of {name} has shape {tuple(x.shape)} and dtype {x.dtype}; expected {expected} "
                    f"of shape {shape}: one step, without batch"
                )
            steps.append(x[None])
        if all(x.is_floating_point() for x in steps):
            return list(self.nano.quantize_inputs(*steps))
        if any(x.is_floating_point() for x in steps):
            raise InputError("some inputs of a step are floats and some integers; expected one kind")
        return steps

    def _step(self, integers: Sequence[Tensor]) -> list[Tensor]:
        """The integer outputs [1, ...] in torch's layout."""
        arrays = [value.to_device(x.cpu()).numpy() for value, x in zip(self._inputs, integers, strict=True)]
        return [
            value.from_device(torch.from_numpy(output))
            for output, value in zip(self._running.step(arrays), self._outputs, strict=True)
        ]

    def __repr__(self) -> str:
        return f"Stream({self.nano.name!r}, step_length={self.step_length})"
