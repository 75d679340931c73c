"""Attention written by hand and of torch's modules, on host and board."""

import math
from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.graph import Graph
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


class Batched(nn.Module):
    """A module between transposes to [length, N, width] and back, if it is not batch first."""

    def __init__(self, layer: nn.Module, batch_first: bool, keywords: dict[str, object]) -> None:
        super().__init__()
        self.layer, self.batch_first, self.keywords = layer, batch_first, keywords

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.batch_first:
            inputs = tuple(x.transpose(0, 1) for x in inputs)
        results = self.layer(*inputs, **self.keywords)
        if isinstance(results, Tensor):
            return results if self.batch_first else results.transpose(0, 1)
        y, weights = results
        y = y if self.batch_first else y.transpose(0, 1)
        return y if weights is None else (y, weights)


def self_attention(batch_first: bool) -> tuple[nn.Module, tuple[int, ...]]:
    class SelfAttention(nn.MultiheadAttention):
        def forward(self, x: Tensor, **keywords: object) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
            return super().forward(x, x, x, **keywords)  # type: ignore[arg-type]

    return SelfAttention(WIDTH, 4, batch_first=batch_first, dropout=0.1), (WIDTH,)


#: Modules by name: how to make them and the widths of their inputs.
MODULES: dict[str, Callable[[bool], tuple[nn.Module, tuple[int, ...]]]] = {
    "self-attention": self_attention,
    "cross-attention": lambda first: (
        nn.MultiheadAttention(WIDTH, 2, batch_first=first, kdim=10, vdim=6, bias=False),
        (WIDTH, 10, 6),
    ),
    "encoder": lambda first: (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 2, 20, batch_first=first, activation="gelu"),
            2,
            nn.LayerNorm(WIDTH),
            enable_nested_tensor=False,
        ),
        (WIDTH,),
    ),
    "decoder": lambda first: (
        nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 2, 20, batch_first=first), 1),
        (WIDTH, WIDTH),
    ),
    "transformer": lambda first: (
        nn.Transformer(WIDTH, 2, 1, 1, 20, batch_first=first, norm_first=True),
        (WIDTH, WIDTH),
    ),
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("self-attention", {"need_weights": False}),
        ("self-attention", {}),
        ("self-attention", {"average_attn_weights": False}),
        ("cross-attention", {"need_weights": False}),
        ("cross-attention", {}),
        ("encoder", {}),
        ("decoder", {}),
        ("transformer", {}),
    ],
)
# torch says when its encoder does not use nested tensors.
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_torchs_modules_convert_with_the_batch_in_either_place(
    name: str, keywords: dict[str, object], batch_first: bool, optimized: list[Graph]
) -> None:
    torch.manual_seed(0)
    layer, widths = MODULES[name](batch_first)
    model = Batched(layer, batch_first, keywords).eval()
    # Queries of one length, keys of another.
    xs = tuple(torch.randn(32, 9 - min(index, 1), width) for index, width in enumerate(widths))
    nano = tn.to_nano(model, tuple(x[:2] for x in xs), calibrate=xs, check=False)
    with torch.no_grad():
        expected = model(*xs)
        found = optimized[0].float_run(*xs)
    for y, reference in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        torch.testing.assert_close(y, reference, atol=1e-5, rtol=0)
    report = nano.verify("host", xs)
    assert report, report


def test_the_batch_in_another_place_moves_nothing_more() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, LENGTH, WIDTH)
    layers = []
    for batch_first in (True, False):
        layer, _ = MODULES["encoder"](batch_first)
        graph = optimize(capture(Batched(layer, batch_first, {}).eval(), x))
        layers.append([node.operator for node in graph.nodes])
    assert layers[0] == layers[1]


@pytest.mark.parametrize("enabled", [True, False])
def test_torchs_fast_path_is_as_it_was_after_a_conversion(enabled: bool) -> None:
    model, x = self_attention(True)[0].eval(), torch.randn(2, LENGTH, WIDTH)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        capture(model, x)
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_positions_outside_of_the_sequence_are_refused(option: str) -> None:
    x = torch.randn(2, LENGTH, WIDTH)
    layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True, **{option: True})
    with pytest.raises(tn.errors.UnsupportedError, match=f"(?s){option}=True.*leave {option} out") as caught:
        tn.to_nano(layer, (x, x, x), calibrate=(x, x, x))
    (node,) = caught.value.nodes
    assert node.operator == "nn.MultiheadAttention"


class Masked(nn.Module):
    """An encoder with a causal mask that adds `excluded` to the scores of later positions."""

    def __init__(self, excluded: float, is_causal: bool | None) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.is_causal = is_causal
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), excluded).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x, self.mask, is_causal=self.is_causal)


@pytest.mark.parametrize("excluded", [-math.inf, -10.0])
@pytest.mark.parametrize("is_causal", [None, True])
def test_causal_masks_keep_the_output(is_causal: bool | None, excluded: float) -> None:
    torch.manual_seed(0)
    model = Masked(excluded, is_causal).eval()
    x = torch.randn(64, LENGTH, WIDTH)
    nano = tn.to_nano(model, x[:2], calibrate=x)
    with torch.no_grad():
        ratio = decibels(nano(x), model(x))
    assert ratio >= 30, f"{ratio:.1f} dB"
    report = nano.verify("host", x)
    assert report, report
