"""Parameters that a model repeats for each sample, as the queries of attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

Forward = Callable[["Queries", Tensor], Tensor]


class Queries(nn.Module):
    """`forward` of the module, with two learned queries, and an input [N, 5, 8]."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.queries = nn.Parameter(torch.randn(2, 8))
        self.linear = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 12)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


FORMS: list[Forward] = [
    lambda m, x: m.attention(m.queries.expand(x.shape[0], -1, -1), x, x)[0],
    lambda m, x: F.scaled_dot_product_attention(m.queries[None].repeat(x.shape[0], 1, 1), m.linear(x), x),
    lambda m, x: torch.bmm(m.queries.expand(x.shape[0], 2, 8), x.mT),
    lambda m, x: x @ m.queries.reshape(2, 8, 1).permute(2, 1, 0).expand(x.shape[0], -1, -1),
    lambda m, x: x.unsqueeze(1) @ torch.stack([m.linear.weight, m.linear.weight.exp()]),
    lambda m, x: m.linear.weight.reshape(2, 4, 8) @ x.unsqueeze(1).mT,
]


def check(model: nn.Module, x: Tensor) -> None:
    """Compares the graph with the module, and the image with the graph."""
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            optimize(capture(model, x)).float_run(x)[0], model(x), rtol=1e-5, atol=1e-5
        )
    assert tn.to_nano(model, x, calibrate=x, check=False).verify("host", x[:4])


@pytest.mark.parametrize("forward", FORMS)
def test_constant_matrices_are_groups_of_a_convolution(forward: Forward) -> None:
    x = torch.randn(32, 5, 8, generator=torch.Generator().manual_seed(0))
    model = Queries(forward)
    check(model, x)
    operators = [node.operator.name for node in optimize(capture(model, x)).nodes]
    assert operators.count("matmul") <= 1


def test_a_decoder_computes_its_first_self_attention_at_conversion() -> None:
    def forward(m: Queries, x: Tensor) -> Tensor:
        target = torch.zeros(2, x.shape[0], 8) + m.queries[:, None]
        return m.decoder(target, x.transpose(0, 1)).transpose(0, 1)

    x = torch.randn(32, 5, 8, generator=torch.Generator().manual_seed(0))
    model = Queries(forward)
    check(model, x)
    assert [node.operator.name for node in optimize(capture(model, x)).nodes].count("softmax") == 1


def test_queries_are_trained() -> None:
    x = torch.randn(32, 5, 8, generator=torch.Generator().manual_seed(0))
    qat = tn.prepare_qat(Queries(FORMS[0]), x, calibrate=x)
    before = qat.queries.detach().clone()
    tn.fit(qat, (x, x[:, :2]), epochs=1, loss=nn.MSELoss())
    assert not torch.equal(qat.queries, before)
    assert torch.equal(qat.eval()(x), qat.to_nano()(x))
