"""Random networks from capture to the image, with combinations that the fixed networks lack."""

import random

import pytest
import torch
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class GlobalMean(nn.Module):
    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), self.keepdim)


def random_network(choose: random.Random, shape: tuple[int, ...]) -> nn.Module:
    """Random layers for inputs of this shape, then a flatten and one or two linear layers."""
    conv, norm, pools = {
        1: (nn.Conv1d, nn.BatchNorm1d, (nn.MaxPool1d, nn.AvgPool1d)),
        2: (nn.Conv2d, nn.BatchNorm2d, (nn.MaxPool2d, nn.AvgPool2d)),
    }[len(shape) - 1]
    layers: list[nn.Module] = []
    channels = shape[0]

    def activation() -> nn.Module:
        kinds = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.ELU, nn.Sigmoid, nn.Identity)
        return choose.choice(kinds)()

    for _ in range(choose.randrange(2, 7)):
        kind = choose.choice(
            ("conv", "depthwise", "pointwise", "residual", "norm", "pool", "activation", "dropout")
        )
        if kind == "conv":
            outputs = choose.randrange(1, 13)
            kernel, stride = choose.choice((1, 3, 5)), choose.choice((1, 1, 2))
            bias = choose.random() < 0.5
            layers.append(conv(channels, outputs, kernel, stride, padding=kernel // 2, bias=bias))
            channels = outputs
        elif kind == "depthwise":
            layers.append(conv(channels, channels, 3, padding=2, dilation=2, groups=channels))
        elif kind == "pointwise":
            layers += [conv(channels, 8, 1, bias=False), norm(8)]
            channels = 8
        elif kind == "residual":
            layers.append(
                Residual(nn.Sequential(conv(channels, channels, 3, padding=1), norm(channels), activation()))
            )
        elif kind == "norm":
            layers.append(norm(channels))
        elif kind == "pool":
            layers.append(choose.choice(pools)(3, choose.choice((1, 2)), padding=1))
        layers.append(nn.Dropout() if kind == "dropout" else activation())
    if choose.random() < 0.5:
        keepdim = choose.random() < 0.5
        layers += [GlobalMean(keepdim), *([nn.Flatten()] if keepdim else [])]
    else:
        layers.append(nn.Flatten())
    layers.append(activation())
    hidden = choose.randrange(1, 20)
    layers += [nn.LazyLinear(hidden), nn.BatchNorm1d(hidden), activation(), nn.Linear(hidden, 4)]
    if choose.random() < 0.3:
        layers.append(nn.Softmax(1))
    return nn.Sequential(*layers)


class Branches(nn.Module):
    """Branches that are concatenated along a dimension."""

    def __init__(self, branches: list[nn.Module], dimension: int) -> None:
        super().__init__()
        self.branches, self.dimension = nn.ModuleList(branches), dimension

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], self.dimension)


class Halves(nn.Module):
    """One half of the channels goes through a body; the halves are shuffled, as in ShuffleNet."""

    def __init__(self, body: nn.Module, shuffled: bool) -> None:
        super().__init__()
        self.body, self.shuffled = body, shuffled

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        y = torch.cat([first, self.body(second)], 1)
        if not self.shuffled:
            return y
        batch, channels, *sides = y.shape
        return y.view(batch, 2, channels // 2, *sides).transpose(1, 2).reshape(batch, channels, *sides)


class Nested(nn.Module):
    """Parts of a value and parts of these parts."""

    def __init__(self, bodies: list[nn.Module]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> Tensor:
        outer = x[:, 2:]
        inner = outer[:, 1:-1]
        last = inner[:, :, 1:-1]
        outer, inner, last = (
            body(part) for body, part in zip(self.bodies, (outer, inner, last), strict=True)
        )
        return torch.stack([outer[:, :, 1:-1] + inner[:, :, 1:-1], last], 2).flatten(1, 2)


def random_branching_network(choose: random.Random, shape: tuple[int, ...]) -> nn.Module:
    """Random concatenations, splits and stacks of 8 channels for inputs of this shape."""
    conv, pool = {1: (nn.Conv1d, nn.MaxPool1d), 2: (nn.Conv2d, nn.MaxPool2d)}[len(shape) - 1]

    def body(inputs: int, outputs: int) -> nn.Module:
        kernel = choose.choice((1, 3))
        layers = [conv(inputs, outputs, kernel, padding=kernel // 2)]
        if choose.random() < 0.5:
            layers.append(conv(outputs, outputs, 3, padding=1, groups=choose.choice((1, outputs))))
        # Their outputs have different scales; softmax has a fixed one.
        activations = (nn.ReLU(), nn.SiLU(), nn.Sigmoid(), nn.Softmax(1), nn.Identity())
        return nn.Sequential(*layers, choose.choice(activations))

    layers: list[nn.Module] = [conv(shape[0], 8, 3, padding=1), nn.ReLU()]
    for _ in range(choose.randrange(1, 4)):
        kind = choose.choice(("branches", "halves", "nested", "along"))
        if kind == "branches":
            sizes = choose.choice(((3, 5), (2, 2, 4), (8,)))
            branches = [body(8, size) for size in sizes]
            if choose.random() < 0.5:
                branches.append(pool(3, 1, padding=1))
            channels = sum(sizes) + 8 * (len(branches) - len(sizes))
            layers += [Branches(branches, 1), conv(channels, 8, 1)]
        elif kind == "halves":
            layers.append(Halves(body(4, 4), choose.random() < 0.7))
        elif kind == "nested":
            layers.append(Nested([body(6, 4), body(4, 4), body(4, 4)]))
        else:
            layers += [Branches([body(8, 8), nn.Identity()], choose.randrange(2, len(shape) + 1)), pool(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_with_branches_give_the_same_bytes_on_the_board(seed):
    choose = random.Random(seed)
    shape = choose.choice([(3, 12, 10), (4, 30)])
    x = inputs(shape, 32, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = random_branching_network(choose, shape).eval()
        model(x)
    nano = tn.to_nano(model, x, calibrate=x)
    for target, samples in (("host", x * 2), ("rv32imc", x[:3] * 2)):
        report = nano.verify(target, samples)
        assert report, f"seed {seed}: {report}\n{nano.graph.graph}"


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_give_the_same_bytes_everywhere(seed):
    choose = random.Random(seed)
    shape = choose.choice([(3, 12, 10), (1, 9, 9), (4, 30)])
    x = inputs(shape, 48, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = random_network(choose, shape)
        model.train()(x)
    model.eval()
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(choose.random() < 0.5)
    captured = capture(model, x)
    with torch.no_grad():
        expected = model(x)
        # A batch norm may blow up what float32 rounded before it; the size of the outputs is about 1.
        torch.testing.assert_close(captured.float_run(x)[0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(optimize(captured).float_run(x)[0], expected, rtol=1e-4, atol=1e-4)
    ranges = choose.choice([{}, {"method": "percentile", "percentile": 95.0}])
    nano = tn.to_nano(model, x, calibrate=x, head=None, check=False, **ranges)
    report = nano.verify("host", x * 2)
    assert report, f"seed {seed}: {report}\n{nano.graph.graph}"
    assert torch.isfinite(nano(x)).all()
