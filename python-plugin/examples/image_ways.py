"""The strategies of transfer learning in the images example, each from the network of the old task."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch_nano as tn
from image_models import resnet18
from image_tasks import DIGITS, Task, accuracy, logits
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torchvision.models.resnet import ResNet  # type: ignore[import-untyped]
from training import reproducible

RATES = {"fc": 1e-3, "layer[34]": 1e-4, "*": 1e-5}
"""Learning rates of the lessons: large at the new head, a hundredth of it at the input."""


@dataclass(frozen=True)
class Outcome:
    """A strategy's accuracies on the new task and, with the old head, on the old task."""

    trained_parameters: int
    new: float
    #: None: it never learnt the old task.
    old: float | None


def outcome(model: ResNet, old_head: nn.Module, old: Task, new: Task) -> Outcome:
    """A network's accuracies on both tasks."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    head = model.fc
    on_new = accuracy(logits(model, new.x_test), new.y_test)
    model.fc = old_head
    on_old = accuracy(logits(model, old.x_test), old.y_test)
    model.fc = head
    return Outcome(trained, on_new, on_old)


def with_new_head(model: ResNet, seed: int) -> ResNet:
    """A copy with a new, untrained head."""
    model = copy.deepcopy(model)
    with reproducible(seed):
        model.fc = nn.Linear(model.fc.in_features, DIGITS)
    return model


def from_scratch(new: Task, *, width: int, seed: int) -> Outcome:
    """A narrow network trained on the new task's images only."""
    with reproducible(seed):
        model = resnet18(DIGITS, width=width)
    tn.fit(model, new.train, epochs=30, batch_size=25, seed=seed, progress=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Outcome(parameters, accuracy(logits(model, new.x_test), new.y_test), None)


def by_hand(model: ResNet, new: Task, seed: int) -> ResNet:
    """Freezing as in the lessons, by requires_grad only: the batch norms' statistics go on changing."""
    model = with_new_head(model, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    tn.fit(model, new.train, epochs=10, batch_size=50, learning_rate=3e-3, seed=seed, progress=False)
    return model


def extract_features(model: ResNet, new: Task, seed: int) -> tuple[ResNet, float, float]:
    """A new head on the frozen network; also the seconds of an epoch without and with cached features."""
    model = with_new_head(model, seed)
    frozen = copy.deepcopy(model)
    tn.freeze(frozen)
    tn.unfreeze(frozen, "fc")
    slow = tn.fit(frozen, new.train, epochs=2, seed=seed, progress=False)
    fast = tn.transfer.feature_extraction(
        model, new.train, head="fc", epochs=60, learning_rate=3e-3, seed=seed, progress=False
    )
    return model, min(slow["seconds"]), min(fast["seconds"])


def fine_tune(model: ResNet, train: tuple[Tensor, Tensor], seed: int) -> tn.training.History:
    """Fine-tunes all layers at their own learning rates, which StepLR lowers; in place."""
    return tn.transfer.fine_tuning(
        model,
        train,
        learning_rates=RATES,
        scheduler=lambda optimizer: StepLR(optimizer, step_size=4, gamma=0.3),
        epochs=6,
        batch_size=25,
        seed=seed,
        progress=False,
    )


def unfreeze_gradually(model: ResNet, new: Task, seed: int) -> tn.training.History:
    """Trains first the head, then also the last layer, then everything; in place."""
    return tn.transfer.gradual_unfreezing(
        model,
        new.train,
        schedule={0: ["fc"], 6: ["layer4"], 10: ["*"]},
        learning_rates={"fc": 5e-3, "layer4": 1e-4, "*": 1e-5},
        epochs=15,
        batch_size=25,
        seed=seed,
        progress=False,
    )


def five_channels(images: Tensor) -> Tensor:
    """Images [N, 3, H, W] with two more channels: the differences of the ink downwards and to the right."""
    down, right = torch.gradient(images[:, 0], dim=(1, 2))
    return torch.cat([images, down[:, None], right[:, None]], dim=1)


def own_digits(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of both tasks' logits [N, 20], each sample among the digits of its own task.

    The old task's digits are the classes 0 to 9, the new one's 10 to 19.
    """
    foreign = (torch.arange(2 * DIGITS) < DIGITS) != (target < DIGITS)[:, None]
    return F.cross_entropy(output.masked_fill(foreign, -1e4), target)


def with_both_heads(model: ResNet, old_head: nn.Linear) -> ResNet:
    """A copy whose head is the old one and the model's own, side by side."""
    model = copy.deepcopy(model)
    head = nn.Linear(old_head.in_features, 2 * DIGITS)
    with torch.no_grad():
        head.weight.copy_(torch.cat([old_head.weight, model.fc.weight]))
        head.bias.copy_(torch.cat([old_head.bias, model.fc.bias]))
    model.fc = head
    return model


def both_accuracies(model: nn.Module, old: Task, new: Task) -> tuple[float, float]:
    """The accuracies of a network of both tasks on the new one and on the old one."""
    return (
        accuracy(logits(model, new.x_test)[:, DIGITS:], new.y_test),
        accuracy(logits(model, old.x_test)[:, :DIGITS], old.y_test),
    )


def rehearse(model: ResNet, old_head: nn.Linear, old: Task, new: Task, seed: int) -> ResNet:
    """Fine-tuning with rehearsal: two old images for each new one."""
    model = with_both_heads(model, old_head)
    some = 2 * len(new.x)
    x, y = torch.cat([old.x[:some], new.x]), torch.cat([old.y[:some], new.y + DIGITS])
    tn.transfer.fine_tuning(
        model,
        (x, y),
        learning_rates=RATES,
        loss=own_digits,
        epochs=4,
        batch_size=50,
        seed=seed,
        progress=False,
    )
    return model


def distil(
    teacher: ResNet, old: Task, new: Task, *, width: int, epochs: int, seed: int
) -> tuple[ResNet, tn.qat.QatModule]:
    """Distils both tasks into a narrow network: in float, then through the device's arithmetic."""
    some = 6 * len(new.x)
    x = torch.cat([old.x[:some], new.x.repeat(4, 1, 1, 1)])
    y = torch.cat([old.y[:some], new.y.repeat(4) + DIGITS])
    with reproducible(seed):
        small = resnet18(2 * DIGITS, width=width)
    tn.transfer.distillation(
        small,
        teacher,
        (x, y),
        loss=own_digits,
        epochs=epochs,
        scheduler=lambda optimizer: StepLR(optimizer, step_size=epochs // 2, gamma=0.3),
        learning_rate=2e-3,
        seed=seed,
        progress=False,
    )
    few = slice(some - 200, some + len(new.x))
    qat = tn.prepare_qat(small, x[:1], calibrate=x[few])
    tn.qat.freeze_ranges(qat)
    tn.transfer.distillation(
        qat,
        small,
        (x[few], y[few]),
        loss=own_digits,
        epochs=1,
        learning_rate=1e-4,
        seed=seed,
        progress=False,
    )
    return small, qat
