"""Recurrent modules in torch.export: one custom operator for each layer and direction.

torch.export traces torch's recurrent functions step by step, with a batch of unknown size, which takes
seconds for each layer; here they are never traced.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedError, UnsupportedNode
from .source_lines import user_line

_VF: Any = torch._VF
_PACKED = (
    "its sequences have lengths of their own; a device runs windows of one length",
    "give it windows of one length, [N, steps, channels]",
)

#: A layer in one direction: of x [N, steps, F], each initial state [N, H], and the parameters. It returns
#: the sequence, and an LSTM the last cell state too.
_Layer = Callable[..., Any]
_LAYERS: Mapping[Any, _Layer] = {
    _VF.gru: torch.ops.torch_nano.gru_layer,
    _VF.lstm: torch.ops.torch_nano.lstm_layer,
    _VF.rnn_tanh: partial(torch.ops.torch_nano.rnn_layer, relu=False),
    _VF.rnn_relu: partial(torch.ops.torch_nano.rnn_layer, relu=True),
}


class RecurrentLayers(TorchFunctionMode):
    """Replaces torch's recurrent functions by the custom operators of :mod:`..library.recurrent_layers`."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is _VF._pack_padded_sequence:
            line = user_line([(at.filename, at.lineno or 0) for at in traceback.extract_stack()])
            raise UnsupportedError([UnsupportedNode("", line, "pack_padded_sequence", *_PACKED)])
        if function in _LAYERS:
            return self._run(_LAYERS[function], *args, **kwargs)
        return function(*args, **kwargs)

    def _run(
        self,
        layer: _Layer,
        x: Tensor,
        states: Tensor | Sequence[Tensor],
        parameters: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        """torch's function: the sequence, and the final states [layers, N, H], of an LSTM hidden and cell."""
        given = [states] if isinstance(states, Tensor) else states
        directions = 2 if bidirectional else 1
        count = len(parameters) // (num_layers * directions)
        # An LSTM with projections is refused before the export.
        assert count == (4 if has_biases else 2), f"{count} parameters of a layer"
        finals: list[list[Tensor]] = [[] for _ in given]
        if not batch_first:
            x = x.transpose(0, 1)
        for index in range(num_layers):
            if index and dropout:
                x = F.dropout(x, dropout, train)
            results = []
            for direction in range(directions):
                place = index * directions + direction
                own = [*parameters[count * place :][:count], None, None][:4]
                start = [state[place] for state in given]
                made = layer(x.flip(1) if direction else x, *start, *own)
                y, *cells = [made] if isinstance(made, Tensor) else made
                for final, state in zip(finals, (y.select(1, -1), *cells), strict=True):
                    final.append(state)
                results.append(y.flip(1) if direction else y)
            x = torch.cat(results, 2) if bidirectional else results[0]
        return x if batch_first else x.transpose(0, 1), *map(_stacked, finals)


def _stacked(states: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(states)) if len(states) > 1 else states[0].unsqueeze(0)
