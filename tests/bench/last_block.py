"""The last convolution and the head against the head alone, on digits of another kind than the factory's.

The network learns 1,500 digits of MNIST; the new task is that of the images example, 100 digits that other
people wrote on a tablet. Both heads learn them in integers, and float32 SGD trains the same layers with the
same weights, rate, schedule and order of the samples.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch_nano as tn
from image_tasks import DIGITS, Task, load_tasks
from reference.sgd_head import XORSHIFT_SEED, Xorshift32, visits  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from training import reproducible

EPOCHS, HALVE_EVERY, LEARNING_RATE = 20, 5, 0.03
CHIP = "esp32c3"


@dataclass(frozen=True)
class Transfer:
    """What one seed recognises of 1,000 new digits, in %, and the RAM of a session."""

    head: float
    block: float
    block_in_float: float
    #: Bytes of the whole session that trains block and head: arena, head and spare copy, ring, frames.
    ram: int


def measure(seed: int) -> Transfer:
    """All trainings from one network."""
    old, new = (_grey(task) for task in load_tasks(1500, 100, 1000, seed))
    with reproducible(seed):
        model = _network()
    tn.fit(model, old.train, epochs=6, batch_size=32, seed=seed, progress=False)
    model = _fused(model.eval())
    head, block = (_learnt(model, old.x[:300], new, layers) for layers in (1, 2))
    ram = round(sum(block[1].fits(CHIP).ram.parts.values()))
    return Transfer(head[0], block[0], _learnt_in_float(model, new), ram)


def _network() -> nn.Sequential:
    """[1, 28, 28] -> 3x3 pixels of 32 channels -> a convolution, the last block -> a Linear."""
    first = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    block = [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(
        *first, *second, *block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, DIGITS)
    )


def _fused(model: nn.Sequential) -> nn.Sequential:
    """The same in evaluation mode, without batch norms."""
    layers: list[nn.Module] = []
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            convolution = layers[-1]
            assert isinstance(convolution, nn.Conv2d)
            layers[-1] = fuse_conv_bn_eval(convolution, module)
        else:
            layers.append(module)
    return nn.Sequential(*layers).eval()


def _grey(task: Task) -> Task:
    return Task(task.x[:, :1].contiguous(), task.y, task.x_test[:, :1].contiguous(), task.y_test)


def _learnt(model: nn.Sequential, x: Tensor, new: Task, layers: int) -> tuple[float, tn.NanoModule]:
    """What the last layers recognise after they learnt the new digits in integers, and the model."""
    settings = tn.heads.SGD(LEARNING_RATE, halve_every=HALVE_EVERY)
    nano = tn.to_nano(model, x[:1], calibrate=x, head=settings, train_last=layers, check=False)
    head = nano.head
    assert isinstance(head, tn.heads.SgdHead)
    head.fit(nano.features_int8(new.x), new.y, EPOCHS)
    return _right(head.predict(nano.features_int8(new.x_test)), new.y_test), nano


def _learnt_in_float(model: nn.Sequential, new: Task) -> float:
    """The same training of the last two layers in float32."""
    model = copy.deepcopy(model).requires_grad_(False)
    convolution = max(index for index, module in enumerate(model) if isinstance(module, nn.Conv2d))
    before, after = model[:convolution], model[convolution:].requires_grad_(True)
    parameters, random = list(after.parameters()), Xorshift32(XORSHIFT_SEED)
    x, x_test = before(new.x), before(new.x_test)
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE / 2 ** (epoch // HALVE_EVERY)
        for index in visits(random, len(x)):
            loss = nn.functional.cross_entropy(after(x[index : index + 1]), new.y[index : index + 1])
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=rate)
    with torch.no_grad():
        return _right(after(x_test).argmax(1), new.y_test)


def _right(classes: Tensor, expected: Tensor) -> float:
    return float((classes == expected).float().mean()) * 100
