"""Small networks of three families for images [1, H, W] and windows [channels, length], and a skew of their
scales that leaves their function as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: A network, and the layers in it whose channels can be scaled: each with the layer that alone reads it.
Pairs = list[tuple["Layer", "Layer"]]


class Layer(nn.Module):
    """A convolution of one or two dimensions, its batch norm, and a ReLU or nothing.

    Args:
        spatial: number of dimensions, 1 or 2.
    """

    def __init__(
        self,
        spatial: int,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        activation: bool = True,
    ) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[spatial - 1]
        groups = inputs if depthwise else 1
        self.convolution = convolution(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = norm(outputs)
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


class Residual(nn.Module):
    """Layers in a row, whose result is added to their input, or to a shortcut of it."""

    def __init__(self, layers: Sequence[Layer], shortcut: nn.Module, *, activation: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = shortcut
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return y


class Network(nn.Module):
    """Blocks, the mean over all positions, and a Linear."""

    def __init__(self, blocks: Sequence[nn.Module], features: int, classes: int, pairs: Pairs) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(features, classes)
        self.pairs = [*pairs]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(x).flatten(2).mean(2))
        return logits


def resnet8(spatial: int, channels: int, classes: int, stride: int) -> Network:
    """Like MLPerf Tiny's ResNet8."""
    blocks: list[nn.Module] = [Layer(spatial, channels, 16, 3, stride=stride)]
    pairs = []
    for inputs, outputs, step in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        first = Layer(spatial, inputs, outputs, 3, stride=step)
        second = Layer(spatial, outputs, outputs, 3, activation=False)
        shortcut = Layer(spatial, inputs, outputs, 1, stride=step, activation=False) if step > 1 else None
        blocks.append(Residual([first, second], shortcut or nn.Identity(), activation=True))
        pairs.append((first, second))
    return Network(blocks, 64, classes, pairs)


def ds_cnn(spatial: int, channels: int, classes: int, stride: int) -> Network:
    """Like MLPerf Tiny's DS-CNN: depthwise separable convolutions."""
    layers = [Layer(spatial, channels, 32, 5, stride=stride)]
    for step in (1, 2, 1, 1):
        layers += [Layer(spatial, 32, 32, 3, stride=step, depthwise=True), Layer(spatial, 32, 32, 1)]
    return Network(layers, 32, classes, list(itertools.pairwise(layers)))


def mobilenet_v2(spatial: int, channels: int, classes: int, stride: int) -> Network:
    """Like MobileNetV2: inverted residuals; with ReLU for ReLU6, which is not the same function at another
    scale.
    """
    stem = Layer(spatial, channels, 16, 3, stride=stride)
    blocks: list[nn.Module] = [stem]
    pairs = []
    for inputs, outputs, step in ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1)):
        wide = 4 * inputs
        expand = Layer(spatial, inputs, wide, 1)
        depthwise = Layer(spatial, wide, wide, 3, stride=step, depthwise=True)
        project = Layer(spatial, wide, outputs, 1, activation=False)
        layers = [expand, depthwise, project]
        kept = step == 1 and inputs == outputs
        blocks.append(Residual(layers, nn.Identity(), activation=False) if kept else nn.Sequential(*layers))
        pairs += [(expand, depthwise), (depthwise, project)]
    blocks.append(Layer(spatial, 32, 64, 1))
    return Network(blocks, 64, classes, pairs)


NETWORKS: dict[str, Callable[[int, int, int, int], Network]] = {
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
    "mobilenet_v2": mobilenet_v2,
}


@torch.no_grad()
def skew(network: Network, seed: int) -> None:
    """Multiplies the channels that a layer passes to one other layer by 10^u, u uniform in [-1.5, 1.5), and
    the other's weights by the inverse: the network's function stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer, reader in network.pairs:
        scales = 10.0 ** (3.0 * torch.rand(len(layer.norm.weight), generator=generator) - 1.5)
        layer.norm.weight.mul_(scales)
        layer.norm.bias.mul_(scales)
        weight = reader.convolution.weight
        dimension = 1 if reader.convolution.groups == 1 else 0
        shape = [1] * weight.dim()
        shape[dimension] = -1
        weight.div_(scales.reshape(shape))
