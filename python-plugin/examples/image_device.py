"""What an ESP32 learns of the new digits on its own, in integers, within a limit of RAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch_nano as tn
from image_tasks import DIGITS, Task
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from training import reproducible

EPOCHS, HALVE_EVERY, LEARNING_RATE = 20, 5, 0.03
#: Bytes of RAM that learning may take: the layers that learn, their spare copy, the ring of 128 samples.
LEARNING_RAM = 80_000
#: The last layers among which those that learn are chosen: two convolutions and the Linear.
LAST = 3


@dataclass(frozen=True)
class OnDevice:
    """Accuracies on the new digits."""

    #: Of the head alone, and of the layers that fit.
    head: float
    layers: float
    #: The model whose layers learnt.
    nano: tn.NanoModule


def learn_on_device(old: Task, new: Task, seed: int) -> OnDevice:
    """A small network of the old task learns the new one: its head alone, and the layers that fit."""
    old, new = grey(old), grey(new)
    model = pre_trained(old, seed)
    typical = old.x[:300]
    head, _ = learnt(model, typical, new, train_last=1)
    layers, nano = learnt(model, typical, new, train_last=LAST, budget={"training": LEARNING_RAM})
    return OnDevice(head, layers, nano)


def pre_trained(old: Task, seed: int) -> nn.Sequential:
    """[1, 28, 28] -> 3x3 pixels of 32 channels -> a convolution, the last block -> a Linear; batch norms are
    folded, as the device trains none.
    """
    with reproducible(seed):
        first = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
        block = [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, DIGITS)]
    model = nn.Sequential(*first, *second, *block, *end)
    tn.fit(model, old.train, epochs=6, batch_size=32, seed=seed, progress=False)
    return _fused(model.eval())


def learnt(
    model: nn.Sequential, typical: Tensor, new: Task, **options: object
) -> tuple[float, tn.NanoModule]:
    """What a model recognises after it learnt the new digits in integers, and the model.

    Args:
        typical: images for calibration.
        options: of :func:`torch_nano.to_nano`, which layers learn.
    """
    settings = tn.heads.SGD(LEARNING_RATE, halve_every=HALVE_EVERY)
    nano = tn.to_nano(model, typical[:1], calibrate=typical, head=settings, check=False, **options)  # type: ignore[arg-type]  # it checks them
    head = nano.head
    assert isinstance(head, tn.heads.SgdHead)
    head.fit(nano.features_int8(new.x), new.y, EPOCHS)
    predicted = head.predict(nano.features_int8(new.x_test))
    return float((predicted == new.y_test).float().mean()), nano


def grey(task: Task) -> Task:
    """A task's images with one channel."""
    return Task(task.x[:, :1].contiguous(), task.y, task.x_test[:, :1].contiguous(), task.y_test)


def _fused(model: nn.Sequential) -> nn.Sequential:
    layers: list[nn.Module] = []
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            convolution = layers[-1]
            assert isinstance(convolution, nn.Conv2d)
            layers[-1] = fuse_conv_bn_eval(convolution, module)
        else:
            layers.append(module)
    return nn.Sequential(*layers).eval()
