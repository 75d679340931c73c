"""What a call of a model costs on this machine over its kernels, and what a property of a large one costs.

Times are those of the processor, so that other programs do not count, and all on one core: a run of several
samples would use them all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch_nano as tn
import torchvision  # type: ignore[import-untyped]
from mlperf_tiny import ARCHITECTURES
from torch_nano import _native
from torch_nano.arithmetic.layout import to_device

#: Few, so that a run seldom loses the core, and with it the caches, to another program.
_KERNEL_BATCH = 4
PROPERTIES = ("id", "name", "labels", "image", "flash_bytes", "arena_bytes")


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process on one of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def seconds(acts: list[Callable[[], object]], repeats: int) -> list[float]:
    """The least time of the processor for each act: what else runs takes its caches, and only adds to it.

    The acts take turns, each a few times in a row, so that quiet and busy moments are the same for all.
    """
    least = [float("inf")] * len(acts)
    for turn in range(repeats + 1):
        for index, act in enumerate(acts):
            for _ in range(5):
                start = time.process_time()
                act()
                if turn:
                    least[index] = min(least[index], time.process_time() - start)
    return least


@dataclass(frozen=True)
class CallCosts:
    """Seconds for one sample."""

    #: `nano(x)`, floats in and floats out.
    call: float
    #: nano-core's part of it.
    run: float
    #: Of several samples in one run, so that little but kernels counts.
    kernels: float

    @property
    def over_kernels(self) -> float:
        """The part of a call that does not compute the model."""
        return self.call - self.kernels


def call_costs() -> CallCosts:
    """A call of the autoencoder with one sample."""
    make, shape = ARCHITECTURES["ad01"]
    model, x = make().eval(), torch.randn(64, *shape)
    nano = tn.to_nano(model, x, calibrate=x)
    sample = x[:1]
    one = to_device(nano.quantize_input(sample)).numpy()
    many = one.repeat(_KERNEL_BATCH, 0)
    native = _native.Model(nano.image)
    with one_core():
        call, run, runs = seconds(
            [lambda: nano(sample), lambda: native.run([one]), lambda: native.run([many])], 500
        )
    return CallCosts(call=call, run=run, kernels=runs / _KERNEL_BATCH)


def property_costs() -> tuple[dict[str, float], float]:
    """Seconds for each property of torchvision's resnet18, and for checking its image once."""
    x = torch.randn(2, 3, 224, 224)
    nano = tn.to_nano(torchvision.models.resnet18(weights=None).eval(), x, calibrate=x)
    acts = [lambda name=name: [getattr(nano, name) for _ in range(100)] for name in PROPERTIES]
    with one_core():
        *taken, check = seconds([*acts, lambda: _native.Model(nano.image)], 5)
    return {name: each / 100 for name, each in zip(PROPERTIES, taken, strict=True)}, check
