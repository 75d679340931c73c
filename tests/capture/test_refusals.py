"""Calls without an operator are refused with a reason and a way out that works; a kind is described once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.errors import UnsupportedError, UnsupportedNode

Function = Callable[[Tensor], Tensor]
X = inputs((4, 10), 32)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


POINTS = torch.linspace(-1, 1, 30).reshape(3, 10)
#: What is refused, what its message says, and the same in the way that the message names.
REFUSED: list[tuple[Function, str, Function]] = [
    (
        lambda x: x * (x == x.flip(1)),
        "equal or finite",
        lambda x: x * ((x - x.flip(1)).abs() < 0.01),
    ),
    (
        lambda x: torch.fft.rfft(x).abs(),
        "complex numbers",
        lambda x: ((x @ torch.eye(10, 6)).square() + (x @ torch.eye(10, 6)).square()).sqrt(),
    ),
    (
        lambda x: F.max_pool3d(x.unflatten(2, (5, 2)).unsqueeze(1), (1, 2, 1)),
        "three dimensions",
        lambda x: F.max_pool2d(x.unflatten(2, (5, 2)).unsqueeze(1).flatten(2, 3), (2, 1)),
    ),
    (
        lambda x: torch.pow(x.exp(), torch.arange(1.0, 11)),
        "exponent",
        lambda x: torch.exp(torch.arange(1.0, 11) * x),
    ),
    (
        lambda x: torch.cdist(x[:, 0], POINTS),
        "all pairs",
        lambda x: x[:, 0].square().sum(1, keepdim=True) - 2 * x[:, 0] @ POINTS.T + POINTS.square().sum(1),
    ),
    (lambda x: x.topk(2, 1)[0], "it orders", lambda x: x),
    (lambda x: x.std(0), r"samples of a batch\n.*dim=\(1, 2\), or some", lambda x: x.std(dim=(1, 2))),
    (lambda x: x.sum(2).norm(dim=0), r"samples of a batch\n.*dim=1\b", lambda x: x.sum(2).norm(dim=1)),
    (lambda x: x.norm(0, 2), "use order 1 or 2", lambda x: x.norm(1, 2)),
    (
        lambda x: torch.linalg.matrix_norm(x, 1),
        r"it is a matrix norm of order 1\b(.|\n)*x.abs\(\).sum\(-2\).amax\(-1\)",
        lambda x: x.abs().sum(-2).amax(-1),
    ),
    (
        lambda x: torch.linalg.norm(x, torch.inf, (1, 2)),
        r"it is a matrix norm of order inf\b(.|\n)*x.abs\(\).sum\(-1\).amax\(-1\)",
        lambda x: x.abs().sum(-1).amax(-1),
    ),
    *(
        (
            lambda x, order=order: torch.linalg.matrix_norm(x, order),
            f"it is a matrix norm of order {order}; expected the Frobenius norm",
            lambda x: torch.linalg.norm(x, dim=(1, 2)),
        )
        for order in (-2, "nuc")
    ),
    (lambda x: x.sort(1)[0], "it orders", lambda x: x),
    (lambda x: x[:, 0].softmax(1).multinomial(1), "it draws random", lambda x: x[:, 0].softmax(1)),
    (lambda x: x[:, 0].argmax(1).float(), "it converts indices", lambda x: x[:, 0].argmax(1)),
    (lambda x: torch.atan2(x, x.exp()), "finds the quadrant", lambda x: torch.atan(x / x.exp())),
    (
        lambda x: F.max_pool1d(F.pad(x, (1, 1), value=-torch.inf), 3),
        "pads with -inf",
        lambda x: F.max_pool1d(x, 3, padding=1),
    ),
    (
        lambda x: torch.tensordot(torch.ones(4, 4), x, ([0], [1])),
        "the batch at another place",
        lambda x: torch.tensordot(x, torch.ones(4, 4), ([1], [0])),
    ),
    (lambda x: x.cumsum(1), "depends on all before it", lambda x: torch.ones(4, 4).tril() @ x),
    (
        lambda x: x.masked_fill(torch.eye(4, 10) > 0, -torch.inf).sigmoid(),
        "infinite numbers",
        lambda x: x.masked_fill(torch.eye(4, 10) > 0, -30.0).sigmoid(),
    ),
]


@pytest.mark.parametrize(("refused", "reason", "way_out"), REFUSED)
def test_a_refused_call_has_a_way_out_that_converts(
    refused: Function, reason: str, way_out: Function
) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        capture(Lambda(refused), X)
    # Not what only follows from it.
    (node,) = caught.value.nodes
    assert node.way_out
    nano = tn.to_nano(Lambda(way_out), X, calibrate=X, head=None, check=False)
    assert nano.verify("host", X[:2])


def test_a_kind_is_described_once_with_its_first_places() -> None:
    def refused(x: Tensor) -> Tensor:
        for _ in range(6):
            x = torch.fft.fft(x).real
        return x.cumsum(1)

    with pytest.raises(UnsupportedError) as caught:
        capture(Lambda(refused), X)
    text = str(caught.value)
    assert len(caught.value.nodes) > text.count("\n- ")
    assert text.count("aten.cumsum.default") == 1


def test_places_of_one_kind_are_counted() -> None:
    nodes = [
        UnsupportedNode(f"blocks.{index}", f"net.py:{index}", "aten.fft", "none", "") for index in range(6)
    ]
    other = UnsupportedNode("head", "", "aten.sort", "none", "return it")
    assert str(UnsupportedError([*nodes, other])) == (
        "7 calls of the model, of 2 kinds, cannot run on the device:\n"
        "- blocks.0: aten.fft (net.py:0)\n"
        "    6 calls: also blocks.1 (net.py:1), blocks.2 (net.py:2), blocks.3 (net.py:3), and 2 more\n"
        "    none\n"
        "- head: aten.sort\n"
        "    none\n"
        "    way out: return it"
    )
