"""Models that move data: the same bytes in plain torch, training, nano-core and on the emulated board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.compile.saved_model import _VERSION as VERSION
from torch_nano.files import archive


class ShuffleBlock(nn.Module):
    """Half of the channels goes through a convolution, and then they are shuffled, by hand as most do."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        x = left + self.branch(right)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        y: Tensor = self.last(x.view(batch, channels, height, width))
        return y


class OptionA(nn.Module):
    """The shortcut of the first ResNets: every second pixel, and zeros for the channels that are new."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


class Causal(nn.Module):
    """A block of a temporal convolutional network: padded at both ends, and cut off at the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 4, 3, padding=4, dilation=2)
        self.second = nn.Conv1d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.pad(F.relu(self.first(x)[:, :, :-4].contiguous()), (2, 0)))
        return y


class Decoder(nn.Module):
    """Upsampling as in a U-Net, with the skip added."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.up(self.down(x))
        return y


class Function(nn.Module):
    """A function of a tensor and a layer."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer, x)


#: Models with the shape of their input, and the operators of their layers.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "shuffle": (ShuffleBlock, (8, 5, 6), "move move conv2d add move conv2d"),
    "option A": (OptionA, (4, 7, 6), "conv2d move add"),
    "causal": (Causal, (3, 12), "conv2d conv2d"),
    "decoder": (Decoder, (2, 6, 4), "conv2d move conv2d add"),
    "time first": (
        lambda: Function(lambda layer, x: layer(x.permute(0, 2, 1)), nn.Conv1d(3, 4, 3)),
        (10, 3),
        "conv2d",
    ),
    "transposed": (
        lambda: Function(lambda layer, x: layer(x.transpose(1, 2)), nn.Conv1d(3, 3, 3, groups=3, bias=False)),
        (10, 3),
        "depthwise_conv2d",
    ),
    "one channel": (
        lambda: Function(lambda layer, x: layer(x.unsqueeze(1)), nn.Conv2d(1, 4, 3)),
        (10, 3),
        "conv2d",
    ),
    "subpixel": (
        lambda: Function(lambda layer, x: torch.pixel_shuffle(layer(x), 2), nn.Conv2d(2, 8, 3)),
        (2, 5, 6),
        "conv2d",
    ),
    "flipped": (
        lambda: Function(lambda layer, x: layer(x.flip(2)).flip(1), nn.Conv1d(3, 4, 3)),
        (3, 9),
        "move conv2d move",
    ),
    "last step": (
        lambda: Function(lambda layer, x: layer(F.relu(x)[:, :, -1]), nn.Linear(3, 4)),
        (3, 9),
        "table move fully_connected",
    ),
    "any shape": (
        lambda: Function(lambda layer, x: layer(F.relu(x).reshape(-1, 8, 3)), nn.Conv1d(8, 4, 2)),
        (4, 6),
        "table conv2d",
    ),
    "patches": (
        lambda: Function(lambda layer, x: layer(F.unfold(x, 2, stride=2)), nn.Conv1d(8, 4, 1)),
        (2, 4, 6),
        "conv2d",
    ),
}


def model(name: str) -> tuple[nn.Module, Tensor]:
    """A model in evaluation mode, and samples for it."""
    make, shape, _ = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = make()
        x = inputs(shape, 64)
        made.train()(x)
    return made.eval(), x


@pytest.mark.parametrize("name", MODELS)
def test_all_targets_give_the_same_bytes(name: str) -> None:
    made, x = model(name)
    nano = tn.to_nano(made, x, calibrate=x)
    # Whether an addition is fused depends on the arena.
    operators = " ".join(layer.operator for layer in nano.summary().layers).replace(
        "conv2d_add", "conv2d add"
    )
    assert operators == MODELS[name][2]
    for target, samples in (("host", x), ("rv32imc", x[:4])):
        report = nano.verify(target, samples)
        assert report and report.compared_bytes > 0, report
    with torch.no_grad():
        expected = made(x)
    noise = (nano(x) - expected).square().mean() / (expected - expected.mean(0)).square().mean()
    assert noise < 1 / 400


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_image(name: str) -> None:
    made, x = model(name)
    qat = tn.prepare_qat(made, x, calibrate=x).train()
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


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_loaded_again(name: str, tmp_path: Path) -> None:
    made, x = model(name)
    nano = tn.to_nano(made, x, calibrate=x)
    nano.save(tmp_path / "model")
    loaded = tn.load(tmp_path / "model")
    assert loaded.image == nano.image and torch.equal(loaded(x), nano(x))
    assert str(loaded.graph.graph) == str(nano.graph.graph) and loaded.verify("host", x)


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("flip(dims=[2])", None),
        ("roll(shifts=[1], dims=[2])", "its tables are not those of its steps"),
        ("slice.Tensor(dim=2, start=1)", r"it makes \(4, 6\) of \(4, 7\), not \(4, 7\)"),
        ("flip(dims=[0])", "it mixes the samples of a batch"),
        ("flip(dims=[3])", "does not take"),
        ("relu()", "is no call that moves data"),
        ("flip(dims=[2]).run()", "is no call that moves data"),
        ("flip(dims=open('x'))", "is no call that moves data"),
        ("repeat(repeats=[1, 1, 1000000000])", "expected 1 to 2.22 elements"),
    ],
)
def test_steps_of_a_file_are_checked(step: str, problem: str | None, tmp_path: Path) -> None:
    x = inputs((3, 9), 64)
    nano = tn.to_nano(Function(lambda layer, x: layer(x).flip(2), nn.Conv1d(3, 4, 3)), x, calibrate=x)
    nano.save(tmp_path / "model")
    tree = archive.unpack("model", VERSION, (tmp_path / "model").read_bytes())
    tree["nodes"][-1]["attributes"]["steps"] = (step,)
    (tmp_path / "model").write_bytes(archive.pack("model", VERSION, tree))
    if problem is None:
        assert torch.equal(tn.load(tmp_path / "model")(x), nano(x))
    else:
        with pytest.raises(tn.errors.FileFormatError, match=problem):
            tn.load(tmp_path / "model")


class Permuted(nn.Module):
    """A convolution, and a Linear over all that it makes, height by height."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 3, 3), nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(F.relu(self.body(x)).permute(0, 2, 3, 1).flatten(1))
        return y


def test_a_head_after_moves_is_split_off() -> None:
    x = inputs((2, 5, 6), 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Permuted().eval()
    with torch.no_grad():
        expected = made(x).argmax(1)
    tn.freeze(made, "body")
    nano = tn.to_nano(made, x, calibrate=x)
    assert nano.head_path == "head"
    assert [layer.operator for layer in nano.summary().layers[:-1]] == ["conv2d"]
    assert float((nano(x).argmax(1) == expected).float().mean()) > 0.9
    assert nano.verify("rv32imc", x[:4])


def test_training_compiles_into_one_graph() -> None:
    made, x = model("shuffle")
    qat = tn.prepare_qat(made, x, calibrate=x).train()
    tn.qat.freeze_ranges(qat)
    torch.compiler.reset()
    compiled = torch.compile(qat, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), qat(x))
