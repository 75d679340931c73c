"""Networks for windows of sensor data, as plain PyTorch modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class TemporalBlock(nn.Module):
    """Two causal convolutions with weight norm and a residual connection.

    Args:
        chomp: pad on both sides and cut the end off, instead of padding the start only.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, *, chomp: bool) -> None:
        super().__init__()
        self.padding, self.chomp = 2 * dilation, chomp
        both = self.padding if chomp else 0
        self.first = weight_norm(nn.Conv1d(inputs, outputs, 3, padding=both, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(outputs, outputs, 3, padding=both, dilation=dilation))
        self.dropout = nn.Dropout(0.2)
        self.residual = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def _causal(self, layer: nn.Module, x: Tensor) -> Tensor:
        result: Tensor
        if self.chomp:
            result = layer(x)[:, :, : -self.padding].contiguous()
        else:
            result = layer(F.pad(x, (self.padding, 0)))
        return result

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.relu(self._causal(self.first, x)))
        y = self.dropout(F.relu(self._causal(self.second, y)))
        return F.relu(y + (x if self.residual is None else self.residual(x)))


class Tcn(nn.Module):
    """A temporal convolutional network; the class of a window is that of its last step."""

    def __init__(self, *, chomp: bool) -> None:
        super().__init__()
        widths = [6, 16, 16, 24]
        self.blocks = nn.Sequential(
            *[
                TemporalBlock(widths[level], widths[level + 1], 2**level, chomp=chomp)
                for level in range(len(widths) - 1)
            ]
        )
        self.classifier = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.blocks(x)[:, :, -1])
        return result


class Recurrent(nn.Module):
    """A classifier of windows [N, steps, channels] by a recurrent network.

    Args:
        kind: nn.GRU, nn.LSTM or nn.RNN.
        batch_first: the layout of the recurrent module; the window is transposed for it if not.
        last: read the last step; else the mean of the whole sequence.
    """

    def __init__(
        self,
        kind: type[nn.GRU | nn.LSTM | nn.RNN],
        *,
        layers: int = 1,
        batch_first: bool = True,
        last: bool = True,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.last = batch_first, last
        self.recurrent = kind(6, 20, num_layers=layers, batch_first=batch_first, bidirectional=bidirectional)
        self.classifier = nn.Linear(40 if bidirectional else 20, 5)

    def forward(self, x: Tensor) -> Tensor:
        if not self.batch_first:
            x = x.transpose(0, 1)
        sequence, _ = self.recurrent(x)
        time = 1 if self.batch_first else 0
        steps = sequence.select(time, -1) if self.last else sequence.mean(time)
        result: Tensor = self.classifier(steps)
        return result


class FinalState(nn.Module):
    """A classifier by the final hidden state of the last layer, `h[-1]`."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM | nn.RNN], layers: int = 1) -> None:
        super().__init__()
        self.recurrent = kind(6, 20, num_layers=layers, batch_first=True)
        self.classifier = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.recurrent(x)
        hidden = state[0] if isinstance(state, tuple) else state
        result: Tensor = self.classifier(hidden[-1])
        return result


class SensorTransformer(nn.Module):
    """A small transformer encoder for windows [N, steps, channels] of a sensor."""

    def __init__(self, *, norm_first: bool = False, activation: str = "relu") -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        self.position = nn.Parameter(0.5 * torch.randn(1, 24, 32))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                32, 4, 64, dropout=0.1, activation=activation, batch_first=True, norm_first=norm_first
            ),
            num_layers=2,
            enable_nested_tensor=False,
        )
        self.classifier = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        result: Tensor = self.classifier(self.encoder(x).mean(1))
        return result
