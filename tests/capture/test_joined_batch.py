"""Samples joined with another dimension, such as steps, frames, windows or heads, and taken apart again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

Forward = Callable[[nn.ModuleDict, Tensor], Tensor]


class Model(nn.Module):
    """`forward` of the parts and the input."""

    def __init__(self, forward: Forward, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.parts, x)


def set_statistics(module: nn.Module) -> None:
    """Gives batch norms statistics that are not those of no data."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)


def check(model: nn.Module, x: Tensor) -> None:
    """Compares the graph with the module, and the image with the graph."""
    model.eval()
    with torch.no_grad():
        (found,) = optimize(capture(model, x)).float_run(x)
        torch.testing.assert_close(found, model(x), atol=1e-5, rtol=1e-5)
    assert tn.to_nano(model, x, calibrate=x, check=False).verify("host", x[:4])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "parts",
    [
        lambda qkv: qkv.unbind(0),
        lambda qkv: (qkv[0], qkv[1], qkv[2]),
        lambda qkv: [part.squeeze(0) for part in qkv.split(1)],
        lambda qkv: [part[0] for part in qkv.chunk(3)],
    ],
)
def test_attention_takes_queries_keys_and_values_of_one_linear(
    parts: Callable[[Tensor], Sequence[Tensor]],
) -> None:
    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = parts(m["qkv"](x).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4))
        weights = (q * 0.5 @ k.transpose(-2, -1)).softmax(-1)
        return m["out"]((weights @ v).transpose(1, 2).reshape(n, length, width))

    check(Model(forward, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), torch.randn(32, 5, 8))


def test_heads_joined_with_the_batch_multiply_by_bmm() -> None:
    def heads(x: Tensor) -> Tensor:
        return x.view(x.shape[0], 5, 2, 4).transpose(1, 2).reshape(x.shape[0] * 2, 5, 4)

    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        weights = torch.bmm(heads(m["q"](x)), heads(m["k"](x)).mT).softmax(-1)
        return torch.bmm(weights, heads(x)).view(-1, 2, 5, 4).transpose(1, 2).flatten(2)

    check(Model(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 8)), torch.randn(32, 5, 8))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m["linear"](x.reshape(-1, 6)).relu().reshape(x.shape[0], 5, -1),
        lambda m, x: m["linear"](m["norm"](x.flatten(0, 1))).view(x.shape[0], -1),
        lambda m, x: m["linear"](x.transpose(0, 1).reshape(-1, 6)).view(5, -1, 4).mean(0),
        lambda m, x: m["linear"](m["batch_norm"](x.view(-1, 6)).relu_()).unflatten(0, (-1, 5))[:, -1],
        lambda m, x: (x.view(-1, 6) * x.flatten(0, 1) + m["linear"].weight[0]).softmax(1).view(-1, 5, 6),
        lambda m, x: torch.cat([x.view(-1, 6), m["linear"](x.view(-1, 6))], 1).view(x.shape[0], 5, 10),
        lambda m, x: F.normalize(x.view(-1, 6), dim=1).unfold(1, 3, 2).reshape(x.shape[0], -1),
    ],
)
def test_steps_joined_with_the_batch_have_a_dimension_of_their_own(forward: Forward) -> None:
    parts = {"linear": nn.Linear(6, 4), "norm": nn.LayerNorm(6), "batch_norm": nn.BatchNorm1d(6)}
    x = torch.randn(32, 5, 6)
    model = Model(forward, **parts)
    set_statistics(model)
    check(model, x)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(4)],
        [nn.Conv2d(2, 4, (3, 2), stride=2, padding=(2, 1), dilation=(2, 1)), nn.ReLU()],
        [nn.Conv2d(2, 4, (2, 4), padding="same"), nn.MaxPool2d(2, padding=1)],
        [nn.ReflectionPad2d(1), nn.Conv2d(2, 4, 1, stride=3), nn.Upsample(scale_factor=2)],
        [nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(2, 4, 3, groups=2), nn.AvgPool2d(2)],
        [nn.ConvTranspose2d(2, 4, (4, 3), (3, 1), (2, 0), groups=2, dilation=(2, 1)), nn.GroupNorm(2, 4)],
        [nn.ConvTranspose2d(2, 4, 2, stride=3, output_padding=2), nn.InstanceNorm2d(4, affine=True)],
    ],
)
def test_frames_joined_with_the_batch_are_one_image(layers: list[nn.Module]) -> None:
    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        y = m["layers"](x.view(x.shape[0] * 3, 2, 7, 6))
        return m["head"](y.mean((2, 3)).view(x.shape[0], 3, -1)[:, -1])

    model = Model(forward, layers=nn.Sequential(*layers), head=nn.Linear(4, 3))
    set_statistics(model)
    check(model, torch.randn(32, 3, 2, 7, 6))


def test_windows_of_signals_are_read_by_a_recurrent_layer() -> None:
    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        y = m["conv"](x.flatten(0, 1)).relu().amax(2)
        return m["gru"](y.unflatten(0, (x.shape[0], 3)))[0][:, -1]

    check(
        Model(forward, conv=nn.Conv1d(2, 4, 3, padding=1), gru=nn.GRU(4, 5, batch_first=True)),
        torch.randn(32, 3, 2, 8),
    )


def test_steps_of_images_are_read_by_a_recurrent_layer_with_the_time_first() -> None:
    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        y = m["conv"](x).relu().permute(2, 0, 1, 3)
        return m["lstm"](y.reshape(len(y), -1, 18))[0][-1]

    check(Model(forward, conv=nn.Conv2d(1, 6, (3, 1)), lstm=nn.LSTM(18, 5)), torch.randn(32, 1, 6, 3))


def test_a_layer_with_parameters_on_joined_samples_is_the_only_cause() -> None:
    def forward(m: nn.ModuleDict, x: Tensor) -> Tensor:
        return m["gru"](x.flatten(0, 1))[0][:, -1].relu().view(x.shape[0], 3, -1).sin()

    def way_out(m: nn.ModuleDict, x: Tensor) -> Tensor:
        return torch.stack([m["gru"](x[:, i])[0][:, -1].relu() for i in range(x.shape[1])], 1).sin()

    x = torch.randn(32, 3, 5, 4)
    gru = nn.GRU(4, 5, batch_first=True)
    with pytest.raises(
        tn.errors.UnsupportedError, match=r"joined .*, \[3 \* N, \.\.\.\]\n.*torch.stack"
    ) as caught:
        capture(Model(forward, gru=gru), x)
    assert [node.module_path for node in caught.value.nodes] == ["parts.gru"]
    check(Model(way_out, gru=gru), x)
