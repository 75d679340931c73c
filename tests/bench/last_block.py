"""The last convolution and the head against the head alone, on digits of another kind than the factory's.

The network learns 1,500 digits of MNIST; the new task is that of the images example, 100 digits that other
people wrote on a tablet. Both heads learn them in integers, and float32 SGD trains the same layers with the
same weights, rate, schedule and order of the samples.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from image_device import EPOCHS, HALVE_EVERY, LEARNING_RATE, grey, learnt, pre_trained
from image_tasks import Task, load_tasks
from reference.sgd_head import XORSHIFT_SEED, Xorshift32, visits  # type: ignore[import-not-found]
from torch import Tensor, nn

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
    old, new = (grey(task) for task in load_tasks(1500, 100, 1000, seed))
    model = pre_trained(old, seed)
    head, block = (learnt(model, old.x[:300], new, train_last=layers) for layers in (1, 2))
    ram = round(sum(block[1].fits(CHIP).ram.parts.values()))
    return Transfer(100 * head[0], 100 * block[0], _learnt_in_float(model, new), ram)


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
