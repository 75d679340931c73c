"""Constant masks before a softmax: what they exclude gets probability 0, exactly, and costs no accuracy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.errors import UnsupportedError

LENGTH = 6
X = torch.randn(48, LENGTH, 8, generator=torch.Generator().manual_seed(0))
CAUSAL = torch.ones(LENGTH, LENGTH).tril().bool()
SQUARE = nn.Transformer.generate_square_subsequent_mask(LENGTH)


class Attention(nn.Module):
    """A function of scores [N, LENGTH, LENGTH]; the weights are the model's output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.query = nn.Linear(8, 8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.query(x) @ x.mT)


def _in_place(scores: Tensor) -> Tensor:
    scores += SQUARE
    return scores.softmax(-1)


SPELLINGS: list[Callable[[Tensor], Tensor]] = [
    lambda scores: scores.masked_fill(~CAUSAL, -torch.inf).softmax(-1),
    lambda scores: scores.masked_fill_(~CAUSAL, -1e4).softmax(-1),
    lambda scores: scores.masked_fill(~CAUSAL, torch.finfo(torch.float32).min).softmax(-1),
    lambda scores: (scores + SQUARE).softmax(-1),
    lambda scores: (SQUARE + scores).clone().softmax(-1),
    lambda scores: (scores + (1.0 - CAUSAL.float()) * -10000.0).softmax(-1),
    lambda scores: (scores + torch.full((LENGTH, LENGTH), -torch.inf).triu(1)).softmax(-1),
    lambda scores: torch.where(CAUSAL, scores, -torch.inf).softmax(-1),
    lambda scores: torch.where(~CAUSAL, torch.tensor(-1e9), scores).softmax(-1),
    lambda scores: F.softmax(scores.masked_fill(~CAUSAL, -torch.inf), dim=-1, dtype=torch.float32),
    _in_place,
]


@pytest.mark.parametrize("function", SPELLINGS)
def test_excluded_positions_are_exactly_zero(function: Callable[[Tensor], Tensor]) -> None:
    model = Attention(function)
    nano = tn.to_nano(model, X[:2], calibrate=X, head=None)
    assert [layer.operator for layer in nano.summary().layers].count("masked_softmax") == 1
    found = nano(X)
    assert bool((found[:, ~CAUSAL] == 0).all())
    # The scores' scale is that without the mask.
    assert float((found - model(X).detach()).abs().max()) < 0.05
    assert nano.verify(data=X)


def test_other_constants_are_added_to_the_rest() -> None:
    slopes = 0.3 * torch.arange(LENGTH)
    model = Attention(
        lambda scores: (scores + SQUARE + slopes).softmax(-1) + (scores + (SQUARE + slopes)).softmax(-1)
    )
    nano = tn.to_nano(model, X[:2], calibrate=X, head=None)
    assert float((nano(X) - model(X).detach()).abs().max()) < 0.1
    assert bool((nano(X)[:, ~CAUSAL] == 0).all())


class Causal(nn.Module):
    """Attention of torch with a mask."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps = forward
        self.linear = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.scaled_dot_product_attention(m.linear(x), x, x, is_causal=True),
        lambda m, x: F.scaled_dot_product_attention(m.linear(x), x, x, attn_mask=CAUSAL),
        lambda m, x: F.scaled_dot_product_attention(m.linear(x), x, x, attn_mask=SQUARE),
        lambda m, x: m.attention(x, x, x, attn_mask=~CAUSAL)[0],
        lambda m, x: m.attention(x, x, x, attn_mask=SQUARE, is_causal=True, need_weights=False)[0],
        lambda m, x: m.encoder(x, mask=SQUARE, is_causal=True),
        lambda m, x: m.encoder(x, mask=~CAUSAL),
    ],
)
def test_an_output_of_causal_attention_does_not_depend_on_later_inputs(
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    model = Causal(forward)
    nano = tn.to_nano(model, X[:2], calibrate=X, head=None)
    expected = model(X).detach()
    error = (nano(X) - expected).square().mean() / expected.square().mean()
    assert float(error) < 1e-3 and nano.verify(data=X[:4])
    changed = torch.cat([X[:, :3], X[:, 3:].flip(0)], 1)
    assert torch.equal(nano(changed)[:, :3], nano(X)[:, :3])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda s: s.masked_fill(CAUSAL | True, -torch.inf).softmax(-1), "excludes all positions of a row"),
        (lambda s: s.masked_fill(~CAUSAL, -torch.inf).relu(), "has infinite numbers"),
        (lambda s: (lambda m: m.softmax(-1) + m)(s + SQUARE), "has infinite numbers"),
        (lambda s: (s + SQUARE).masked_fill(~CAUSAL, 0.0).softmax(-1), "a mask has excluded positions"),
    ],
)
def test_masks_that_integers_cannot_represent_are_refused(
    function: Callable[[Tensor], Tensor], reason: str
) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        tn.to_nano(Attention(function), X[:2], calibrate=X)
    assert all(node.way_out for node in caught.value.nodes)


def test_a_large_number_that_is_no_mask_is_added() -> None:
    model = Attention(lambda scores: scores.masked_fill(~CAUSAL, -60.0) + 1.0)
    nano = tn.to_nano(model, X[:2], calibrate=X, head=None, check=False)
    assert float((nano(X) - model(X).detach()).abs().max()) < 0.5
