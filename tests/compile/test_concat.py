"""Networks that concatenate: each input is computed into its part of the output, and no layer copies it."""

from __future__ import annotations

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano._native import Model
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ops.concat import Concat
from torch_nano.ops.move import Move


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Inception(nn.Module):
    """Four branches side by side, two of which are two layers deep."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 12, 3)
        self.branches = nn.ModuleList(
            [
                convolution(12, 8, 1),
                nn.Sequential(convolution(12, 6, 1), convolution(6, 8, 3)),
                nn.Sequential(convolution(12, 4, 1), convolution(4, 6, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(12, 5, 1)),
            ]
        )
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(27, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.end(torch.cat([branch(x) for branch in self.branches], 1))


class Dense(nn.Module):
    """Each layer takes all results before it, through a bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8, 3)
        growth = [nn.Sequential(convolution(8 + 4 * index, 8, 1), convolution(8, 4, 3)) for index in range(3)]
        self.growth = nn.ModuleList(growth)
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 3))

    def forward(self, x: Tensor) -> Tensor:
        results = [self.stem(x)]
        for layer in self.growth:
            results.append(layer(torch.cat(results, 1)))
        return self.end(torch.cat(results, 1))


class Encoder(nn.Module):
    """Two branches of a 1-D network, one after the other in time."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv1d(3, 6, size, stride=2) for size in (3, 5))
        self.end = nn.Sequential(nn.Conv1d(6, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(torch.cat([torch.relu(branch(x)) for branch in self.branches], 2))


class Mixed(nn.Module):
    """Branches that end in functions, of different scales; softmax has a fixed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 16, 3), nn.MaxPool2d(2))
        self.branches = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(16, 8, 1), nn.SiLU()),
                nn.Sequential(nn.Conv2d(16, 6, 1), nn.Softmax(1)),
                nn.Sequential(nn.Conv2d(16, 5, 1), nn.Sigmoid()),
            ]
        )
        self.end = nn.Sequential(nn.Conv2d(19, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.end(torch.cat([branch(x) for branch in self.branches], 1))


class ShuffleUnit(nn.Module):
    """Half of the channels goes through convolutions; then the halves are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.branch = nn.Sequential(convolution(8, 8, 1), depthwise, nn.BatchNorm2d(8), convolution(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        y = torch.cat([first, self.branch(second)], 1)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return y.view(batch, channels, height, width)


class Shuffle(nn.Module):
    """Units as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 16, 3), nn.MaxPool2d(2))
        self.units = nn.Sequential(ShuffleUnit(), ShuffleUnit(), ShuffleUnit())
        self.end = nn.Sequential(nn.Conv2d(16, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.units(self.stem(x)))


class Tokens(nn.Module):
    """Patches of an image as a sequence, with one token before it and two after it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.end = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), nn.Linear(8, 3)
        self.first, self.last = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 2, 8))
        self.position = nn.Parameter(torch.randn(1, 12, 8))
        self.mix = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x, self.last.repeat(x.shape[0], 1, 1)], 1)
        x = self.norm(x + self.position)
        return self.end(self.mix(x.transpose(1, 2))[:, :, 0])


def inputs(shape: tuple[int, ...], count: int = 64) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def made(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(2)
    return network().eval()


NETWORKS = [
    (Inception, (3, 12, 12)),
    (Dense, (3, 12, 12)),
    (Encoder, (3, 41)),
    (Mixed, (3, 12, 12)),
    (Shuffle, (3, 12, 12)),
    (Tokens, (3, 12, 12)),
]
every = pytest.mark.parametrize(("network", "shape"), NETWORKS)


def copied(nano: tn.NanoModule) -> tuple[int, int]:
    """The number of concatenations, and of their inputs that must be copied into the output."""
    model = Model(nano.image)
    concats = [layer for layer in model.layers if layer["operator"] == "concat"]
    count = 0
    for layer in concats:
        (output,) = (model.values[index] for index in layer["outputs"])
        channels_too = [model.values[index]["shape"] for index in layer["inputs"]]
        along_channels = (
            channels_too[0][:2] == output["shape"][:2] and output["shape"][2] > channels_too[0][2]
        )
        offset = output["offset"]
        for value in (model.values[index] for index in layer["inputs"]):
            count += (value["offset"], value["pitch"]) != (offset, output["pitch"])
            height, width, channels = value["shape"]
            offset += channels if along_channels else height * width * output["pitch"]
    return len(concats), count


@every
def test_what_is_concatenated_lies_in_its_place(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    x = inputs(shape)
    nano = tn.to_nano(made(network), x, calibrate=x, optimize="ram")
    concats, copies = copied(nano)
    assert concats == {Dense: 4, Shuffle: 3}.get(network, 1)
    assert copies == 0


def test_the_sequence_is_not_transposed_for_a_token() -> None:
    graph = optimize(capture(made(Tokens), inputs((3, 12, 12))[:2]))
    (concat,) = [node for node in graph.nodes if isinstance(node.operator, Concat)]
    assert concat.operator == Concat(1)
    moves = [(node.operator, node) for node in graph.nodes[: graph.nodes.index(concat)]]
    transposed = [
        node
        for move, node in moves
        if isinstance(move, Move)
        and move.is_permutation(shape := graph.values[node.inputs[0]].shape)
        and not move.keeps_bytes(shape)
    ]
    assert not transposed


@every
def test_host_and_board_give_the_same_bytes(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    x = inputs(shape)
    nano = tn.to_nano(made(network), x, calibrate=x)
    assert nano.verify("host", x)
    report = nano.verify("rv32imc", x[:8])
    assert report and (report.inputs, report.differing_bytes) == (8, 0)


def test_the_arena_of_the_dense_network_has_one_copy_of_each_result() -> None:
    x = inputs((3, 12, 12))
    nano = tn.to_nano(made(Dense), x, calibrate=x, optimize="ram")
    # All 20 channels, a bottleneck's 8 and the scratch memory of a 3x3 convolution of them, four windows.
    assert Model(nano.image).arena_length <= 144 * (20 + 8) + 4 * 9 * 8


@every
def test_training_through_the_arithmetic_is_the_image(
    network: type[nn.Module], shape: tuple[int, ...]
) -> None:
    x = inputs(shape)
    qat = tn.prepare_qat(made(network), x[:2], calibrate=x)
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.01)
    before = qat.to_nano().image
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(qat.train()(x), torch.arange(len(x)) % 3).backward()
        optimizer.step()
    nano = qat.eval().to_nano()
    assert nano.image != before
    assert torch.equal(qat(x), nano(x))


def test_what_has_a_fixed_quantization_is_requantized() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 4), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.first(x), torch.softmax(self.second(x), 1)], 1)

    x = inputs((5,))
    nano = tn.to_nano(made(Gated), x, calibrate=x)
    assert [layer["operator"] for layer in Model(nano.image).layers].count("requantize") == 1
    assert nano.verify("host", x)
    assert (nano(x) - made(Gated)(x)).abs().max() < 0.05
