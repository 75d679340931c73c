"""What a call of a model costs on this machine over its kernels, and what a property of a large one costs.

Times are those of the processor, so that other programs do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_nano as tn
import torchvision  # type: ignore[import-untyped]
from mlperf_tiny import ARCHITECTURES
from torch_nano import _native
from torch_nano.arithmetic.layout import to_device

_KERNEL_BATCH = 500
PROPERTIES = ("id", "name", "labels", "image", "flash_bytes", "arena_bytes")


def seconds(act: Callable[[], object], repeats: int) -> float:
    """The least time of the processor for one act: what else runs takes its caches, and only adds to it."""
    taken = []
    for turn in range(repeats + 5):
        start = time.process_time()
        act()
        if turn >= 5:
            taken.append(time.process_time() - start)
    return min(taken)


@dataclass(frozen=True)
class CallCosts:
    """Seconds for one sample."""

    #: `nano(x)`, floats in and floats out.
    call: float
    #: nano-core's part of it.
    run: float
    #: Of many samples in one run, so that only kernels count.
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
    one = to_device(nano.quantize_input(x[:1])).numpy()
    many = one.repeat(_KERNEL_BATCH, 0)
    native = _native.Model(nano.image)
    return CallCosts(
        call=seconds(lambda: nano(x[:1]), 500),
        run=seconds(lambda: native.run([one]), 500),
        kernels=seconds(lambda: native.run([many]), 10) / _KERNEL_BATCH,
    )


def property_costs() -> tuple[dict[str, float], float]:
    """Seconds for each property of torchvision's resnet18, and for checking its image once."""
    x = torch.randn(2, 3, 224, 224)
    nano = tn.to_nano(torchvision.models.resnet18(weights=None).eval(), x, calibrate=x)
    taken = {}
    for name in PROPERTIES:
        taken[name] = seconds(lambda name=name: [getattr(nano, name) for _ in range(100)], 20) / 100  # type: ignore[misc]
    return taken, seconds(lambda: _native.Model(nano.image), 5)
