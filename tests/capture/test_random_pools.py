"""Random pools, and reductions over all combinations of dimensions, against torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

NORMS = (nn.LPPool1d, nn.LPPool2d)


class Reductions(nn.Module):
    """A reduction over dimensions, without them and with them."""

    def __init__(self, name: str, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.reduce: Callable[..., Tensor] = getattr(torch, name)
        self.dims = dims

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        without, kept = (self.reduce(x, dim=self.dims, keepdim=keepdim) for keepdim in (False, True))
        return without, kept


def check(module: nn.Module, x: Tensor, steps: float) -> None:
    """The float runs of all outputs equal torch's, nano-core's bytes plain torch's, and int8 is close."""
    with torch.no_grad():
        outputs = module(x)
        graph = optimize(capture(module, x))
        reals = graph.float_run(x)
    nano = tn.to_nano(module, x, calibrate=x, check=False)
    assert nano.verify("host", x)
    integers = nano(x)
    several = isinstance(outputs, tuple)
    for expected, real, integer in zip(
        outputs if several else (outputs,), reals, integers if several else (integers,), strict=True
    ):
        largest = float(expected.abs().max())
        torch.testing.assert_close(real, expected, rtol=1e-5, atol=1e-5 * max(largest, 1))
        assert float((integer - expected).abs().max()) <= steps * max(largest, float(x.abs().max())) / 127


def pool(rng: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    """A pool of any mode, and the shape of its input without batch."""
    spatial = rng.choice([1, 2])
    sides = [rng.randint(6, 14) for _ in range(spatial)]

    def several(low: int, high: int) -> list[int]:
        return [rng.randint(low, high) for _ in range(spatial)]

    kernel = several(1, 5)
    padding = [rng.randint(0, side // 2) for side in kernel]
    settings = {"kernel_size": kernel, "stride": several(1, 6), "padding": padding}
    ceil_mode = rng.random() < 0.3
    kind = rng.choice(["max", "average", "adaptive average", "adaptive max", "norm"])
    if kind == "max":
        dilation = [rng.randint(1, 2) if side < 4 else 1 for side in kernel]
        made = (nn.MaxPool1d, nn.MaxPool2d)[spatial - 1](**settings, dilation=dilation, ceil_mode=ceil_mode)
    elif kind == "average":
        # With ceil_mode torch counts the padding in some windows only.
        counts = rng.random() < 0.5 and not ceil_mode
        made = (nn.AvgPool1d, nn.AvgPool2d)[spatial - 1](
            **settings, ceil_mode=ceil_mode, count_include_pad=counts
        )
        if spatial == 2 and not ceil_mode and rng.random() < 0.3:
            made.divisor_override = rng.randint(1, 9)
    elif kind == "norm":
        made = (nn.LPPool1d, nn.LPPool2d)[spatial - 1](2, kernel[0], settings["stride"][0])
    else:
        size = [rng.choice([1, 2, 3, 5, side]) for side in sides]
        maximum = kind == "adaptive max"
        if spatial == 1:
            made = (nn.AdaptiveMaxPool1d if maximum else nn.AdaptiveAvgPool1d)(size[0])
        else:
            whole = tuple(None if rng.random() < 0.2 else side for side in size)
            made = (nn.AdaptiveMaxPool2d if maximum else nn.AdaptiveAvgPool2d)(whole)
    if spatial == 2 and rng.random() < 0.2:
        # Of another layout.
        return nn.Sequential(Transposed(), made), (4, *sides[::-1])
    return made, (4, *sides)


class Transposed(nn.Module):
    """Height and width change places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


@pytest.mark.parametrize("seed", range(40))
def test_a_random_pool_is_torch_s(seed: int) -> None:
    module, shape = pool(random.Random(seed))
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(seed))
    # A square root has large errors near 0.
    check(module, x, steps=16 if any(isinstance(made, NORMS) for made in module.modules()) else 4)


@pytest.mark.parametrize("name", ["mean", "sum", "amax", "amin", "std"])
def test_reductions_over_all_combinations_of_dimensions(name: str) -> None:
    for shape in [(6,), (5, 7), (4, 5, 6)]:
        x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(len(shape)))
        for count in range(1, len(shape) + 1):
            for dims in combinations(range(1, len(shape) + 1), count):
                # A sum is the mean, in steps of the input's scale, times the number of elements.
                elements = math.prod(x.shape[dim] for dim in dims)
                steps = {"sum": 4 + elements / 2, "std": 16}.get(name, 4)
                check(Reductions(name, dims), x, steps)
