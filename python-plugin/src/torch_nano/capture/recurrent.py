"""Recurrent modules in torch.export: one custom operator for each layer and direction.

torch.export traces torch's recurrent functions step by step, with a batch of unknown size, which takes
seconds for each layer; here they are never traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedError, UnsupportedNode

_VF: Any = torch._VF
_PACKED = UnsupportedNode(
    "",
    "",
    "pack_padded_sequence",
    "its sequences have lengths of their own; a device runs windows of one length",
    "give it windows of one length, [N, steps, channels]",
)
#: Functions whose results are zeros.
_ZEROS: frozenset[Any] = frozenset({torch.zeros, torch.zeros_like, Tensor.new_zeros})

#: A layer in one direction: of x [N, steps, F], the initial state or None, and the parameters, the sequence.
_Layer = Callable[..., Tensor]
_LAYERS: Mapping[Any, _Layer] = {
    _VF.gru: torch.ops.torch_nano.gru_layer,
    _VF.rnn_tanh: partial(torch.ops.torch_nano.rnn_layer, relu=False),
    _VF.rnn_relu: partial(torch.ops.torch_nano.rnn_layer, relu=True),
}


class RecurrentLayers(TorchFunctionMode):
    """Replaces torch's recurrent functions by the custom operators of :mod:`..library.recurrent_layers`."""

    def __init__(self) -> None:
        super().__init__()
        #: Tensors of zeros that forward has made; kept, so that no other tensor gets their identity.
        self.zeros: dict[int, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is _VF._pack_padded_sequence:
            raise UnsupportedError([_PACKED])
        if function in _LAYERS:
            return self._run(_LAYERS[function], *args, **kwargs)
        result = function(*args, **kwargs)
        if function in _ZEROS:
            self.zeros[id(result)] = result
        return result

    def _run(
        self,
        layer: _Layer,
        x: Tensor,
        state: Tensor,
        parameters: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, Tensor]:
        """torch's function of a GRU or an RNN: the sequence, and the final states [layers, N, H]."""
        directions = 2 if bidirectional else 1
        given = None if id(state) in self.zeros else state
        count = len(parameters) // (num_layers * directions)
        finals = []
        if not batch_first:
            x = x.transpose(0, 1)
        for index in range(num_layers):
            if index and dropout:
                x = F.dropout(x, dropout, train)
            results = []
            for direction in range(directions):
                place = index * directions + direction
                own = [*parameters[count * place :][:count], None, None][:4]
                start = None if given is None else given[place]
                y = layer(x.flip(1) if direction else x, start, *own)
                finals.append(y.select(1, -1))
                results.append(y.flip(1) if direction else y)
            x = torch.cat(results, 2) if bidirectional else results[0]
        final = torch.stack(finals) if len(finals) > 1 else finals[0].unsqueeze(0)
        return x if batch_first else x.transpose(0, 1), final
