"""Recurrent layers in exported programs: custom operators without a kernel.

torch.export traces torch's own recurrent functions step by step. The capture calls these operators instead,
one for each layer and direction; their sequences are [N, steps, F] and [N, steps, H], and the last cell state
is [N, H]. A state is None where it is zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PARAMETERS = "Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh"

torch.library.define("torch_nano::gru_layer", f"(Tensor x, Tensor? state, {_PARAMETERS}) -> Tensor")
torch.library.define(
    "torch_nano::rnn_layer", f"(Tensor x, Tensor? state, {_PARAMETERS}, bool relu) -> Tensor"
)
torch.library.define(
    "torch_nano::lstm_layer",
    f"(Tensor x, Tensor? state, Tensor? cell, {_PARAMETERS}) -> (Tensor, Tensor)",
)


def _sequence(x: Tensor, state: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, *_: object) -> Tensor:
    return x.new_empty(*x.shape[:2], weight_hh.shape[1])


def _sequence_and_cell(
    x: Tensor, state: Tensor | None, cell: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, *_: object
) -> tuple[Tensor, Tensor]:
    return _sequence(x, state, weight_ih, weight_hh), x.new_empty(x.shape[0], weight_hh.shape[1])


torch.library.register_fake("torch_nano::lstm_layer", _sequence_and_cell)
for _name in ("gru_layer", "rnn_layer"):
    torch.library.register_fake(f"torch_nano::{_name}", _sequence)
