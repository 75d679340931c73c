"""The arena that nano-core plans for networks whose figures are known."""

from __future__ import annotations

import torch
import torch_nano as tn
from mlperf_tiny import ARCHITECTURES


def test_mobilenet_takes_the_arena_of_the_better_order() -> None:
    """By length alone it takes 64,512 bytes."""
    make, shape = ARCHITECTURES["mobilenet_v1_025"]
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    assert tn.to_nano(make().eval(), x, calibrate=x, optimize="ram").arena_bytes == 55_296
