"""Models on tensors of any rank: permutations that no layer needs leave no move on the device."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.ir.graph import Graph


class Function(nn.Module):
    """A function of a tensor and of the layers in a module."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Perceptron(nn.Module):
    """The feed-forward half of a transformer layer, with its residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.second(F.gelu(self.first(x))))
        y: Tensor = self.last(x + self.second(F.relu(self.first(x))))
        return y


class Patches(nn.Module):
    """The patch embedding of a vision transformer, and a perceptron on the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 6, 2, stride=2)
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.embed(x).flatten(2).transpose(1, 2))
        return y


def linear() -> nn.Module:
    layers = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3)
    return nn.Sequential(*layers)


#: Models with the shape of their input, and the operators of their layers.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "linear on vectors": (
        linear,
        (6,),
        "fully_connected fully_connected table fully_connected",
    ),
    "linear on rank 2": (linear, (7, 6), "conv2d conv2d table conv2d"),
    "linear on rank 3": (linear, (3, 4, 6), "conv2d conv2d table conv2d"),
    "linear on rank 4": (linear, (2, 2, 3, 6), "conv2d conv2d table conv2d"),
    "residual": (Perceptron, (5, 6), "conv2d table conv2d add conv2d conv2d add conv2d"),
    "patches": (Patches, (2, 8, 6), "conv2d conv2d table conv2d"),
    "channels last": (
        lambda: Function(
            lambda m, x: m.linear(F.relu(m.conv(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            conv=nn.Conv2d(2, 4, 3),
            linear=nn.Linear(4, 3),
        ),
        (2, 5, 6),
        "conv2d conv2d",
    ),
    "unsqueeze": (
        lambda: Function(lambda m, x: m.conv(x.unsqueeze(1)), conv=nn.Conv2d(1, 4, 3)),
        (6, 7),
        "conv2d",
    ),
    "view": (
        lambda: Function(
            lambda m, x: m.conv(x.view(x.shape[0], 3, 4, 5)).transpose(1, 2), conv=nn.Conv2d(3, 4, 3)
        ),
        (60,),
        "conv2d",
    ),
    "rank 5": (
        lambda: Function(
            lambda m, x: m.conv(torch.tanh(x).permute(0, 3, 1, 2, 4, 5).flatten(2, 3).flatten(3)),
            conv=nn.Conv2d(3, 4, 2),
        ),
        (2, 2, 3, 2, 2),
        "table conv2d",
    ),
    "gate": (
        lambda: Function(
            lambda m, x: m.last(m.first(x) * torch.sigmoid(m.first(x).amax((2,), keepdim=True))),
            first=nn.Conv1d(3, 4, 2),
            last=nn.Conv1d(4, 2, 1),
        ),
        (3, 8),
        "conv2d conv2d max_pool2d table mul conv2d",
    ),
    "broadcast over time": (
        lambda: Function(
            lambda m, x: m.last(m.first(x) + m.other(x[:, :1])),
            first=nn.Linear(6, 4),
            other=nn.Linear(6, 4),
            last=nn.Linear(4, 3),
        ),
        (5, 6),
        "conv2d conv2d add conv2d",
    ),
}


MODELS |= {
    "softmax over the last dimension": (
        lambda: Function(
            lambda m, x: m.last(torch.softmax(m.first(x), -1)), first=nn.Linear(6, 4), last=nn.Linear(4, 3)
        ),
        (5, 6),
        "conv2d softmax conv2d",
    ),
    "mean of tokens": (
        lambda: Function(
            lambda m, x: m.last(F.relu(m.first(x)).mean(1)), first=nn.Linear(6, 4), last=nn.Linear(4, 3)
        ),
        (5, 6),
        "conv2d average_pool2d fully_connected",
    ),
    "largest over two dimensions": (
        lambda: Function(
            lambda m, x: m.last(m.first(x).amax((1, 2))), first=nn.Linear(6, 4), last=nn.Linear(4, 3)
        ),
        (2, 3, 6),
        "conv2d max_pool2d fully_connected",
    ),
}


def model(name: str) -> tuple[nn.Module, Tensor]:
    """A model in evaluation mode, and samples for it."""
    make, shape, _ = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval(), inputs(shape, 64)


def operators(nano: tn.NanoModule) -> str:
    """The operators of the layers; views cost nothing. Whether an addition is fused depends on the arena."""
    names = " ".join(layer.operator for layer in nano.summary().layers if layer.kernel != "move_view")
    return names.replace("conv2d_add", "conv2d add")


@pytest.mark.parametrize("name", MODELS)
def test_no_move_is_left_and_all_targets_give_the_same_bytes(name: str) -> None:
    made, x = model(name)
    nano = tn.to_nano(made, x, calibrate=x)
    assert operators(nano) == MODELS[name][2]
    for target, samples in (("host", x), ("rv32imc", x[:4])):
        report = nano.verify(target, samples)
        assert report and report.compared_bytes > 0, report
    assert nano.input_shape == tuple(x.shape[1:])
    with torch.no_grad():
        expected = made(x)
    assert nano(x).shape == expected.shape
    noise = (nano(x) - expected).square().mean() / (expected - expected.mean(0)).square().mean()
    assert noise < 1 / 400


@pytest.mark.parametrize("name", MODELS)
def test_every_call_gives_the_bytes_of_the_plain_run(name: str, tmp_path: Path) -> None:
    made, x = model(name)
    nano = tn.to_nano(made, x, calibrate=x)
    integers = nano.quantize_input(x)
    (plain,) = nano.graph.integer_run(integers)
    y = nano.forward_int8(integers)
    assert torch.equal(y, plain)
    scale, zero_point = nano.output_quantization.scale, nano.output_quantization.zero_point
    torch.testing.assert_close(nano(x), (y.float() - zero_point) * scale, rtol=0, atol=0)
    assert torch.equal(nano(x.double()), nano(x))
    nano.save(tmp_path / "model")
    loaded = tn.load(tmp_path / "model")
    assert loaded.image == nano.image and torch.equal(loaded(x), nano(x))
    assert str(loaded.graph.graph) == str(nano.graph.graph)


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_image(name: str) -> None:
    made, x = model(name)
    qat = tn.prepare_qat(made, x, calibrate=x).train()
    assert qat.input_shape == tuple(x.shape[1:]) and qat(x).shape == made(x).shape
    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        qat(x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.grad.any()) for p in qat.parameters())
    with torch.no_grad():
        y = qat.eval()(x)
    nano = qat.to_nano()
    assert torch.equal(nano(x), y) and nano.verify("host", x)


@pytest.mark.parametrize("name", ["linear on rank 3", "patches", "rank 5", "view"])
def test_a_device_gets_the_bytes_that_python_runs(name: str) -> None:
    made, x = model(name)
    nano = tn.to_nano(made, x, calibrate=x)
    expected = nano.forward_int8(nano.quantize_input(x[:3]))
    value = nano.graph.graph.values[nano.graph.graph.outputs[0]]
    with tn.Device("sim", nano=nano) as device:
        arrays = nano.device_inputs(x[:3])
        for index in range(3):
            outputs = [
                device.predict(given).outputs["output"]
                for given in (x[index], nano.quantize_input(x)[index], arrays[index])
            ]
            for output in outputs:
                y = torch.from_numpy(output.copy())[None]
                assert torch.equal(value.from_device(y)[0], expected[index])


class Normalized(nn.Module):
    """A normalization of each column of a table (length, 3), which a convolution over time reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([100.0, 0.0, -3.0]))
        self.register_buffer("std", torch.tensor([0.5, 80.0, 4000.0]))
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(((x - self.mean) / self.std).transpose(1, 2))
        return y


def test_columns_of_different_units_have_scales_of_their_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Normalized().eval()
    x = inputs((9, 3), 64) * made.std + made.mean
    nano = tn.to_nano(made, x, calibrate=x)
    assert operators(nano) == "conv2d" and nano.verify("host", x)
    assert nano.input_shape == (9, 3) and nano.input_channels["x"].scale.shape == (3,)
    with torch.no_grad():
        expected = made(x)
    assert (nano(x) - expected).square().mean() / expected.square().mean() < 1 / 400
    (plain,) = nano.graph.integer_run(nano.quantize_input(x))
    assert torch.equal(nano.forward_int8(nano.quantize_input(x)), plain)
    with tn.Device("sim", nano=nano) as device:
        y = torch.from_numpy(device.predict(x[0]).outputs["output"].copy())[None]
    value = nano.graph.graph.values[nano.graph.graph.outputs[0]]
    assert torch.equal(value.from_device(y)[0], plain[0])
    qat = tn.prepare_qat(made, x, calibrate=x).eval()
    assert torch.equal(qat.to_nano()(x), qat(x))


class TimeFirst(nn.Module):
    """A causal network of a table (length, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
        return y


def test_a_stream_takes_rows_of_the_users_table() -> None:
    x = inputs((9, 3), 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nano = tn.to_nano(TimeFirst().eval(), x, calibrate=x)
    stream = nano.stream()
    assert stream.step_length == 1
    for index in range(9):
        row = x[0, index] if index % 2 else x[0, index : index + 1]
        y = stream.step(row)
    assert y.shape == (1, 2) and torch.equal(y[0], nano(x[:1])[0, -1])


def test_the_exported_module_says_the_order_of_the_users_elements(tmp_path: Path) -> None:
    made, x = model("view")
    tn.to_nano(made, x, calibrate=x).export(tmp_path)
    text = (tmp_path / "model.rs").read_text()
    assert "A sample in PyTorch has shape (60,) and is reshaped to (3, 20) and permuted by (1, 0)." in text


class Steps(nn.Module):
    """Functions and layers, one after the other."""

    def __init__(self, steps: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def random_step(choose: random.Random, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """A move, an elementwise operator or a layer for a batch of a shape."""
    rank = len(shape)
    dims = [0, *choose.sample(range(1, rank), rank - 1)]
    dim = choose.randint(1, max(rank - 2, 1))
    steps: list[Callable[[Tensor], Tensor]] = [
        nn.Linear(shape[-1], choose.randint(2, 5)),
        lambda x: x.permute(dims),
        lambda x: torch.tanh(x.permute(dims)),
        choose.choice((F.relu, torch.tanh, F.gelu)),
        lambda x: x + torch.tanh(x),
        lambda x: x * torch.sigmoid(x.narrow(dim, 0, 1)),
        lambda x: x.transpose(1, -1) - F.relu(x.transpose(1, -1).narrow(dim, 0, 1)),
    ]
    if rank > 2:
        steps.append(lambda x: x.flatten(dim, dim + 1))
    if shape[-1] % 2 == 0:
        steps.append(lambda x: x.unflatten(-1, (2, -1)))
    return choose.choice(steps)


@pytest.mark.parametrize("seed", range(60))
def test_random_compositions_are_the_model(seed: int, optimized: list[Graph]) -> None:
    choose = random.Random(seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        x = torch.randn(16, *(choose.randint(2, 4) for _ in range(choose.randint(1, 4))))
        steps: list[Callable[[Tensor], Tensor]] = [torch.tanh]
        y = torch.tanh(x)
        for _ in range(choose.randint(3, 9)):
            steps.append(random_step(choose, tuple(y.shape)))
            y = steps[-1](y)
    made = Steps(steps).eval()
    nano = tn.to_nano(made, x, calibrate=x)
    (found,) = optimized[0].float_run(x)
    torch.testing.assert_close(
        found, y, rtol=1e-4, atol=1e-5, msg=lambda text: f"seed {seed}: {text}\n{optimized[0]}"
    )
    assert nano(x).shape == y.shape, f"seed {seed}"
    report = nano.verify("host", x)
    assert report, f"seed {seed}: {report}\n{nano.graph.graph}"
    (plain,) = nano.graph.integer_run(nano.quantize_input(x))
    assert torch.equal(nano.forward_int8(nano.quantize_input(x)), plain), f"seed {seed}"
