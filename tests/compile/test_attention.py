"""Self-attention written by hand, with one head and with several, on host and board."""

import math

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ops.matmul import Matmul
from torch_nano.ops.move import Move

LENGTH, WIDTH = 12, 16


class Attention(nn.Module):
    """Layer normalization, then attention over the rows of [N, length, width]."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        with torch.no_grad():
            # The root of a head's width, in the weights.
            self.query.weight *= 3 / math.sqrt(WIDTH / heads)

    def split(self, x: Tensor) -> Tensor:
        """[N, length, width] as [N, heads, length, width / heads]; with a single head as it is."""
        return x if self.heads == 1 else x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        y = torch.softmax(query @ key.transpose(-2, -1), -1) @ value
        return self.out(y if self.heads == 1 else y.transpose(1, 2).flatten(2))


def decibels(y: Tensor, reference: Tensor) -> float:
    return float(10 * torch.log10(reference.square().sum() / (y - reference).square().sum()))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_loses_little_and_gives_the_same_bytes_everywhere(heads: int) -> None:
    torch.manual_seed(0)
    model, x = Attention(heads).eval(), torch.randn(64, LENGTH, WIDTH)
    nano = tn.to_nano(model, x[:2], calibrate=x)
    with torch.no_grad():
        ratio = decibels(nano(x), model(x))
    assert ratio >= 25, f"{ratio:.1f} dB"
    for board, samples in (("host", x), ("rv32imc", x[:4])):
        report = nano.verify(board, samples)
        assert report, report


def test_a_single_head_moves_nothing_between_its_layers() -> None:
    torch.manual_seed(0)
    graph = optimize(capture(Attention(1).eval(), torch.randn(2, LENGTH, WIDTH)))
    layers = [node.operator for node in graph.nodes]
    inner = layers[1 : len(layers) - 1]
    assert not any(isinstance(operator, Move) for operator in inner), layers
    products = [operator.transpose_b for operator in layers if isinstance(operator, Matmul)]
    assert products == [True, False]
