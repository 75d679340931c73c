"""`to_nano(train_last=k)`: accepted models, errors, results."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano.chips import chip
from torch_nano.heads import LayersHead


def mlp(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), *between, nn.Linear(128, 10)
    )


def convolutions() -> nn.Sequential:
    """The last three layers: a 1x1 convolution at 36 pixels, a Linear over them, a Linear."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(216, 20),
        nn.Linear(20, 3),
    )


class Residual(nn.Module):
    """Two convolutions of `x` added to it: 3x3 ones, or 1x1, depthwise, 1x1 of more channels."""

    def __init__(self, channels: int, *, separable: bool) -> None:
        super().__init__()
        wide = 2 * channels
        depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        parts: list[nn.Module] = [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        if separable:
            parts = [nn.Conv2d(channels, wide, 1), nn.ReLU6(), depthwise, nn.ReLU6()]
        last = nn.Conv2d(wide, channels, 1) if separable else nn.Conv2d(channels, channels, 3, padding=1)
        self.branch = nn.Sequential(*parts, last)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


def network(*middle: nn.Module, channels: int = 8, average: bool = True) -> nn.Sequential:
    """Layers between a first convolution, [1, 12, 12] to [8, 6, 6], and pool and Linear."""
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(1) if average else nn.MaxPool2d(3)
    stem = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()]
    for module in middle:
        module.apply(lambda own: own.reset_parameters() if isinstance(own, nn.Conv2d) else None)
    return nn.Sequential(*stem, *middle, pool, nn.Flatten(), nn.Linear(channels, 3))


def convolution(inputs: int, outputs: int, **geometry: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, **geometry), nn.ReLU())


def noise(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).square().mean() / (expected - expected.mean(0)).square().mean())


@pytest.mark.parametrize(
    ("model", "shape", "count", "paths"),
    [
        (mlp(), (12,), 2, "2, 4"),
        (mlp(nn.Dropout(0.5)), (12,), 3, "0, 2, 5"),
        (convolutions(), (2, 8, 8), 2, "5, 6"),
        (convolutions(), (2, 8, 8), 3, "2, 5, 6"),
        (
            nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU(), nn.Conv1d(4, 5, 1), nn.Flatten(), nn.Linear(180, 2)),
            (3, 40),
            2,
            "2, 4",
        ),
        (network(convolution(8, 8)), (1, 12, 12), 2, "2.0, 5"),
        (network(convolution(8, 8, stride=2), average=False), (1, 12, 12), 2, "2.0, 5"),
        (
            network(convolution(8, 8, groups=8, stride=2), nn.Conv2d(8, 12, 1), channels=12, average=False),
            (1, 12, 12),
            3,
            "2.0, 3, 6",
        ),
        (network(Residual(8, separable=False)), (1, 12, 12), 3, "2.branch.0, 2.branch.2, 5"),
        (
            network(convolution(8, 8), Residual(8, separable=False)),
            (1, 12, 12),
            4,
            "2.0, 3.branch.0, 3.branch.2, 6",
        ),
        (
            network(Residual(8, separable=True)),
            (1, 12, 12),
            4,
            "2.branch.0, 2.branch.2, 2.branch.4, 5",
        ),
        (
            nn.Sequential(
                nn.Conv1d(3, 4, 5), nn.ReLU(), nn.Conv1d(4, 5, 3, stride=2), nn.Flatten(), nn.Linear(85, 2)
            ),
            (3, 40),
            2,
            "2, 4",
        ),
    ],
)
def test_it_starts_as_the_float_model_and_goes_back_into_it(
    model: nn.Sequential, shape: tuple[int, ...], count: int, paths: str
) -> None:
    model = model.eval()
    x = inputs(shape, 64)
    nano = tn.to_nano(model, x, calibrate=x, train_last=count, learning_rate=1e-3)
    assert isinstance(nano.head, LayersHead) and nano.head_path == paths and nano.head.layers >= count
    row = nano.summary().layers[-1]
    assert (row.operator, row.memory, row.weight_bytes) == ("layers_head", "RAM", len(nano.head.state()))
    with torch.no_grad():
        expected = model(x)
        # The largest output between the layers may have only 32 steps: a quarter of those of int8.
        assert noise(nano(x), expected) < 1 / 128
        nano.head.fit(nano.features_int8(x), torch.arange(64) % nano.head.classes, epochs=3)
        learnt = copy.deepcopy(model)
        nano.load_head_into(learnt)
        assert noise(nano(x), learnt(x)) < 1 / 100
        assert noise(learnt(x), expected) > 0
    assert nano.verify("host", x)


def test_memory_sizes_are_those_of_the_formula() -> None:
    x = inputs((12,), 64)
    nano = tn.to_nano(mlp(), x, calibrate=x, train_last=2)
    assert nano.head is not None
    weights = 65 * 128 + 129 * 10
    # Weights, three words, and to work in: sums and errors, two bounds, outputs.
    assert len(nano.head.state()) == 2 * weights + 12
    assert nano.head.ram_bytes == 2 * weights + 12 + 4 * (128 + 10) + 4 * 2 + 128 <= 32 * 1024
    # The whole session on a chip: the spare copy is in flash, but for the part of a record on its way there.
    ram = nano.fits_without_time(chip("esp32c3")).ram
    assert ram.parts["head's copy"] == 500 and ram.used <= 32 * 1024


def test_it_learns_what_one_layer_cannot() -> None:
    """Exclusive or of two features: with a hidden layer that is frozen at zero output nothing is learnt."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand((400, 2), generator=rng) * 2 - 1
    y = (x[:, 0] * x[:, 1] > 0).long()
    torch.manual_seed(1)
    # The features are the input: there is no layer before the head.
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    nano = tn.to_nano(
        model, x, calibrate=x, train_last=2, head=tn.heads.SGD(learning_rate=0.05, halve_every=20)
    )
    assert nano.head is not None
    features = nano.features_int8(x)
    nano.head.fit(features, y, epochs=60)
    assert (nano.head.predict(features) == y).float().mean() > 0.95


def test_losses_class_weights_and_frozen_rows_work() -> None:
    x = inputs((12,), 64)
    heads = {}
    settings: dict[str, Any] = {
        "plain": {},
        "weights": {"class_weights": (1.0,) * 9 + (0.01,)},
        "frozen": {"frozen": (3,)},
        "binary": {"loss": "binary"},
    }
    for name, options in settings.items():
        nano = tn.to_nano(
            mlp(), x, calibrate=x, train_last=2, head=tn.heads.SGD(learning_rate=0.01, **options)
        )
        assert isinstance(nano.head, LayersHead)
        features, start = nano.features_int8(x), nano.head.weights()
        labels = torch.arange(64) % 10
        targets = nn.functional.one_hot(labels).bool() if name == "binary" else labels
        nano.head.fit(features, targets, epochs=5)
        heads[name] = nano.head.weights()
        moved = (heads[name][1][0] != start[1][0]).any(1)
        assert moved.tolist() == [name != "frozen" or row != 3 for row in range(10)]
        assert (heads[name][0][0] != start[0][0]).any()
    assert not torch.equal(heads["plain"][1][0], heads["weights"][1][0])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    nano = tn.to_nano(
        model, x, calibrate=x, train_last=2, head=tn.heads.SGD(loss="squared", learning_rate=0.02)
    )
    assert nano.head is not None
    features, values = nano.features_int8(x), x[:, 0] - 0.5 * x[:, 1].abs()
    nano.head.fit(features, values, epochs=200)
    assert noise(nano.head.predict(features), values) < 0.1


@pytest.mark.parametrize(
    ("model", "shape", "count", "reason"),
    [
        (mlp(), (12,), 4, "train_last=4 needs 4.*but there is nothing.*train_last=3 is what it can"),
        (mlp(), (12,), 0, "train_last is 0; expected a whole number, 1 or more"),
        (mlp(nn.Softmax(1)), (12,), 2, r"softmax \(4\) stands there; train_last=1"),
        (
            nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3), nn.ReLU()),
            (12,),
            2,
            "activation follows.*end it",
        ),
        (
            nn.Sequential(nn.Conv1d(3, 4, 3, dilation=2), nn.Flatten(), nn.Linear(144, 4)),
            (3, 40),
            2,
            r"conv2d \(0\) has a dilation; train_last=1 is what",
        ),
        (network(convolution(8, 8, groups=2)), (1, 12, 12), 2, "has groups"),
        (
            network(convolution(8, 8), nn.AvgPool2d(3, 1, 1)),
            (1, 12, 12),
            2,
            r"average_pool2d \(3\) is padded",
        ),
        (network(Residual(8, separable=False)), (1, 12, 12), 2, "adds what is computed before them"),
        (
            nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(160, 2)),
            (3, 40),
            2,
            "batch norm after it.*fuse_conv_bn_eval",
        ),
    ],
)
def test_layers_that_cannot_be_trained_are_refused(
    model: nn.Module, shape: tuple[int, ...], count: int, reason: str
) -> None:
    x = inputs(shape, 8)
    with pytest.raises(tn.errors.HeadError, match=reason):
        tn.to_nano(model.eval(), x, calibrate=x, train_last=count)


@pytest.mark.parametrize("head", [tn.heads.LDA(), tn.heads.Prototype(), "4", None, tn.heads.SGD(layer="4")])
def test_other_heads_contradict_it(head: Any) -> None:
    x = inputs((12,), 8)
    with pytest.raises(tn.errors.HeadError, match=r"contradict each other.*leave head out"):
        tn.to_nano(mlp(), x, calibrate=x, train_last=2, head=head)


def test_a_hidden_value_that_is_read_elsewhere_is_refused() -> None:
    class Shortcut(nn.Module):
        def __init__(self, join: Any) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(12, 6), nn.Linear(12, 6), nn.Linear(6, 3)
            self.join = join

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.join(self.a(x), self.b(x)))

    x = inputs((12,), 8)
    for join, reason in ((torch.add, r"add .* adds two branches"), (torch.mul, "mul .* stands there")):
        with pytest.raises(tn.errors.HeadError, match=rf"{reason}.*; train_last=1"):
            tn.to_nano(Shortcut(join), x, calibrate=x, train_last=2)


def test_learning_rates_out_of_range_are_refused() -> None:
    x = inputs((12,), 8)
    for rate in (0.0, -1.0, float("nan"), 1e30):
        with pytest.raises(tn.errors.HeadError, match=r"learning_rate is .*; expected"):
            tn.to_nano(mlp(), x, calibrate=x, train_last=2, learning_rate=rate)


def test_states_are_restored_and_wrong_ones_are_refused(tmp_path: Any) -> None:
    x = inputs((12,), 32)
    nano = tn.to_nano(mlp(), x, calibrate=x, train_last=2)
    assert nano.head is not None
    start = nano.head.state()
    nano.head.fit(nano.features_int8(x), torch.arange(32) % 10, epochs=2)
    learnt = nano.head.state()
    nano.save(tmp_path / "model.tn")
    again = tn.load(tmp_path / "model.tn").head
    assert again is not None and again.state() == learnt != start
    wrong = np.frombuffer(learnt, np.uint8).copy()
    for place, value in ((0, 31), (8, 0)):
        bad = wrong.copy()
        bad[place : place + 4] = (value, 0, 0, 0)
        with pytest.raises(tn.errors.HeadError, match=r"exponent|random"):
            again.load(bad.tobytes())
    bad = wrong.copy()
    bad[12:14] = (255, 127)
    with pytest.raises(tn.errors.HeadError, match="head weight"):
        again.load(bad.tobytes())
    with pytest.raises(tn.errors.HeadError, match="no state"):
        again.load(learnt[:-1])
    assert again.state() == learnt
    again.reset()
    assert again.state() == start


def test_a_model_without_the_modules_is_refused() -> None:
    x = inputs((12,), 8)
    nano = tn.to_nano(mlp(), x, calibrate=x, train_last=2)
    with pytest.raises(tn.errors.HeadError, match=r"a ReLU '4'|no module '4'"):
        nano.load_head_into(nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 128)))
    with pytest.raises(tn.errors.HeadError, match="cannot take weights"):
        nano.load_head_into(mlp()[:4].append(nn.Linear(100, 10)))
    plain = tn.to_nano(mlp(), x, calibrate=x)
    with pytest.raises(tn.errors.HeadError, match="no trainable head; load_head_into takes"):
        plain.load_head_into(mlp())
    with pytest.raises(tn.errors.HeadError, match=r"model is 'net.pt'; expected the"):
        nano.load_head_into("net.pt")
